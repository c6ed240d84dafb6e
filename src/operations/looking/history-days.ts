import type { HistoryDaysOptions, HistoryDaysResult } from "../../contract/looking.ts";
import { newPacer } from "../../pacer.ts";
import type { Point } from "../../workspace/points/point-files.ts";
import type { Workspace } from "../../workspace/open/workspace.ts";
import { shownTo } from "../history.ts";

/**
 * Counts the points of each day, newest first. Points are made in the order of time, so the first of a day is searched for, and only
 * as many points are read as there are steps to it.
 */
export async function historyDays(workspace: Workspace, options: HistoryDaysOptions): Promise<HistoryDaysResult> {
  const numbers = workspace.points.numbers(shownTo(workspace, { all: options.all === true }));
  const pace = newPacer(options.signal);
  const days: HistoryDaysResult["days"] = [];
  for (let end = numbers.length; end > 0;) {
    const newest = readable(workspace, numbers, end - 1);
    const day = newest === null ? "" : dayOf(newest);
    // Steps that double find a day with few points at once, and halving the last step finds its first point.
    let [before, first] = [-1, end - 1];
    for (let step = 1; first - step >= 0; step *= 2) {
      await pace();
      if (isBefore(workspace, numbers, first - step, day)) {
        before = first - step;
        break;
      }
      first -= step;
    }
    while (first - before > 1) {
      await pace();
      const middle = (before + first) >> 1;
      if (isBefore(workspace, numbers, middle, day)) before = middle;
      else first = middle;
    }
    const last = days.at(-1);
    if (last?.day === day || (last !== undefined && newest === null)) last.points += end - first;
    else days.push({ day, points: end - first, newest: newest?.descriptor.save_point_id ?? null });
    end = first;
  }
  return { days, total: numbers.length };
}

function isBefore(workspace: Workspace, numbers: readonly number[], at: number, day: string): boolean {
  const point = readable(workspace, numbers, at);
  return point !== null && dayOf(point) < day;
}

/** The point at a place, or the next older one that can be read; null where there is none. */
function readable(workspace: Workspace, numbers: readonly number[], at: number): Point | null {
  for (let i = at; i >= 0; i--) {
    const point = workspace.points.readOrNull(numbers[i]!);
    if (point !== null) return point;
  }
  return null;
}

/** The local day of a point, as `2026-11-26`. */
function dayOf({ descriptor }: Point): string {
  const date = new Date(descriptor.created_at);
  const two = (value: number): string => String(value).padStart(2, "0");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
}
