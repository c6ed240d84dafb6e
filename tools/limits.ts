import type { ProcessorLimits } from "./run-tests.ts";

/**
 * The figures of tools/limits.json: how large the source is today. A figure may fall, and rises only with a reason.
 * `tools/check-limits.ts` measures and compares them.
 */

/** A measured number: its kind, and the folder, file or command that was measured; empty for the whole source. */
export interface Measure {
  limit: string;
  of: string;
  number: number;
  /** shown with the finding */
  detail?: string;
}

/** The content of tools/limits.json. Figures have names like `production lines: workspace`. */
export interface Recorded {
  /** The least number that each figure has had. */
  least: Record<string, number>;
  /** Limits of processor seconds, which tools/run-tests.ts compares. */
  processor?: ProcessorLimits;
  /** Raises above the least numbers, oldest first. The last raise of a figure is its limit. */
  raised: Raise[];
}

export interface Raise {
  reason: string;
  to: Record<string, number>;
}

/** A figure that differs from its limit. `limit` is null if the figure has no limit yet. */
export interface Change {
  figure: string;
  number: number;
  limit: number | null;
  detail?: string;
}

/**
 * Parts of a figure by which it may differ without a change of the source. A trip calls a few functions more or fewer
 * when the disk is slow or a file is younger than the file system's clock can tell.
 */
const TOLERANCE: Readonly<Record<string, number>> = { "files entered": 0.01, "functions called": 0.01 };

export function figureOf({ limit, of }: Pick<Measure, "limit" | "of">): string {
  return of === "" ? limit : `${limit}: ${of}`;
}

/** Returns the limit of `figure`. `fixed`: limits by kind, for figures that are not recorded. */
export function limitOf(
  measure: Pick<Measure, "limit" | "of">,
  { least, raised }: Recorded,
  fixed: Readonly<Record<string, number>>,
): number | null {
  const figure = figureOf(measure);
  const raise = raised.findLast(({ to }) => to[figure] !== undefined);
  return raise?.to[figure] ?? least[figure] ?? fixed[measure.limit] ?? null;
}

/** Returns the figures that grew above their limits, and those that fell below what is recorded. */
export function changesOf(
  measures: readonly Measure[],
  recorded: Recorded,
  fixed: Readonly<Record<string, number>>,
): { grown: Change[]; fallen: Change[] } {
  const grown: Change[] = [];
  const fallen: Change[] = [];
  const seen = new Set<string>();
  for (const measure of measures) {
    const figure = figureOf(measure);
    seen.add(figure);
    const limit = limitOf(measure, recorded, fixed);
    const slack = Math.floor((limit ?? 0) * (TOLERANCE[measure.limit] ?? 0));
    const change = { figure, number: measure.number, limit, ...(measure.detail ? { detail: measure.detail } : {}) };
    if (limit === null || measure.number > limit + slack) grown.push(change);
    else if (recorded.least[figure] !== undefined && measure.number < limit - slack) fallen.push(change);
  }
  for (const [figure, limit] of Object.entries(recorded.least))
    if (!seen.has(figure)) fallen.push({ figure, number: 0, limit });
  return { grown, fallen };
}

/** Returns the figures of a source that has no record yet. */
export function firstRecord(measures: readonly Measure[], fixed: Readonly<Record<string, number>>): Recorded {
  const { grown } = changesOf(measures, { least: {}, raised: [] }, fixed);
  return { least: Object.fromEntries(grown.map(({ figure, number }) => [figure, number])), raised: [] };
}

/** Returns what to record after `changes`. `reason`: why figures grew; null: grown figures keep their limits. */
export function recordOf(
  recorded: Recorded,
  { grown, fallen }: { grown: readonly Change[]; fallen: readonly Change[] },
  fixed: Readonly<Record<string, number>>,
  reason: string | null,
): Recorded {
  const least = { ...recorded.least };
  const raised = recorded.raised.map(({ reason: why, to }) => ({ reason: why, to: { ...to } }));
  for (const { figure, number } of fallen) {
    least[figure] = Math.min(least[figure]!, number);
    let isReached = least[figure] >= number;
    for (const { to } of raised) {
      if (isReached) delete to[figure];
      else if (to[figure] !== undefined && to[figure] >= number) {
        to[figure] = number;
        isReached = true;
      }
    }
    // The fixed limit of the kind is enough, or the folder is gone.
    if (number <= (fixed[figure.split(": ")[0]!] ?? 0)) delete least[figure];
  }
  if (reason !== null && grown.length > 0) {
    const before = raised.at(-1);
    const raise = before?.reason === reason ? before : { reason, to: {} };
    if (raise !== before) raised.push(raise);
    for (const { figure, number, limit } of grown) {
      // A figure that is recorded for the first time has fallen to nothing before.
      least[figure] ??= limit ?? 0;
      raise.to[figure] = number;
    }
  }
  return { ...recorded, least, raised: raised.filter(({ to }) => Object.keys(to).length > 0) };
}
