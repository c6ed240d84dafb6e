import { advice, CairnError, call, toCairnError } from "../errors.ts";
import { displayPath, normalizeTyped } from "../fs/paths/safe-path.ts";
import { newPacer } from "../pacer.ts";
import { operationLog } from "../workspace/points/operation-log.ts";
import type { WorkspaceState } from "../formats/records/control.ts";
import { heldTreeProblem } from "../workspace/points/held-trees.ts";
import type { Point } from "../workspace/points/point-files.ts";
import { BREAK, folded, type TextRow } from "../workspace/points/point-texts.ts";
import type { DamagedPoint as Damage, ListOptions } from "../workspace/points/points.ts";
import { countDifferences } from "../workspace/points/tree-diff.ts";
import { ensureSealed } from "../workspace/save/seal.ts";
import { momentOf } from "../formats/moments.ts";
import type { Workspace } from "../workspace/open/workspace.ts";
import type { SavePointId } from "../ids.ts";
import type {
  Changes,
  ChangesInBackups,
  DamagedPoint,
  EntryChange,
  HistoryDaysOptions,
  HistoryDaysResult,
  HistoryOptions,
  HistoryResult,
  PathInput,
  SavePoint,
  WhyOptions,
  WhyResult,
  WorkspaceCallOptions,
} from "../contract/index.ts";
import { folderBefore, PathChanges } from "./path-changes.ts";
import { publicPoint } from "./public-point.ts";
import { type Looking, requireOwner } from "./sources/operands.ts";

/** Lists the points of a workspace, newest first. Damaged points are listed separately. */
export async function history(workspace: Workspace, limit: number, options: HistoryOptions): Promise<HistoryResult> {
  const path = options.path === undefined ? null : normalizeTyped(options.path);
  const asked = {
    ...options,
    limit,
    all: options.all === true,
    path,
    from: moment(options, "since"),
    to: moment(options, "until"),
  };
  const list = async (): Promise<Found> => find(workspace, asked);
  const found = await (path === null ? list() : sealingIfNeeded(workspace, list, options));
  const state = workspace.state();
  const { operations, head } = state;
  const last = operations.findLast(({ undo_id: undo, restored_to: to }) => undo !== to);
  const ids = last === undefined ? undefined : workspace.points.ids();
  const undo = ids?.get(last!.undo_id);
  const undoPoint = undo === undefined ? null : workspace.points.readOrNull(undo);
  return {
    save_points: found.points.map((point) => listed(workspace, point)),
    undo: undoPoint === null ? null : listed(workspace, undoPoint),
    ...(undoPoint === null ? {} : { undo_by: last!.kind === "undo" ? "redo" : "undo" }),
    head,
    ...(ids !== undefined && isInPart(workspace, ids, state) ? { head_in_part: true } : {}),
    latest: workspace.points.latest()?.descriptor.save_point_id ?? null,
    damaged: found.damaged,
    truncated: found.truncated,
    ...(isFiltered(asked) ? {} : { total: workspace.points.listed(shownOf(workspace, asked.all)).length }),
    ...(options.changes === true ? { changes: await changesOf(workspace, found.points, options) } : {}),
  };
}

/** True if the newest operation that is not undone changed only some paths, and head is still the point from before it. */
function isInPart(
  { points }: Workspace,
  ids: ReadonlyMap<string, number>,
  { operations, head }: WorkspaceState,
): boolean {
  const last = operationLog(operations).done.findLast(({ before, after }) => before !== after);
  const undo = last === undefined || last.paths === null ? undefined : ids.get(last.before);
  const made = undo === undefined ? null : points.readOrNull(undo);
  return made !== null && made.descriptor.parent_id === head;
}

/** Counts the changes of each point. Null if the point or the one before it is not sealed or cannot be read, or if `folderBefore` is undefined. */
async function changesOf(
  workspace: Workspace,
  points: readonly Point[],
  call: WorkspaceCallOptions,
): Promise<(Changes | null)[]> {
  const count = async (point: Point): Promise<Changes | null> => {
    const before = folderBefore(workspace, point);
    if (!point.sealed || before === undefined || before?.sealed === false) return null;
    const after = await workspace.source(point);
    if (before === null) return { added: publicPoint(point).entries!, modified: 0, removed: 0 };
    return countDifferences(await workspace.source(before), after, call.signal);
  };
  return workspace.engine.reading(async () => {
    const all: (Changes | null)[] = [];
    for (const point of points)
      all.push(
        await count(point).catch((error: unknown) => {
          const { code, details } = toCairnError(error);
          if (code !== "damaged" || details?.["missing_pack"] !== undefined) throw error;
          return null;
        }),
      );
    return all;
  }, call);
}

/** Counts the points of each day with their size, newest first. Days end at midnight in the local time zone. */
export async function historyDays(workspace: Workspace, options: HistoryDaysOptions): Promise<HistoryDaysResult> {
  const { points } = workspace;
  const listed = points.listed(shownOf(workspace, options.all === true));
  const pace = newPacer(options.signal);
  const days = new Map<string, { points: number; newest: SavePointId; bytes: number | null }>();
  const read = new Map<number, string>();
  let copies = 0;
  // An unreadable point counts to the day of the point before it.
  const dayAt = async (place: number): Promise<string> => {
    await pace();
    let day = read.get(place);
    const point = day === undefined ? points.readOrNull(listed[place]!) : null;
    day ??= point === null ? (place === 0 ? "" : await dayAt(place - 1)) : dayOf(new Date(point.descriptor.created_at));
    read.set(place, day);
    return day;
  };
  for (let newest = listed.length - 1; newest >= 0;) {
    const day = await dayAt(newest);
    const before = await lastOfOtherDay(newest, async (place) => (await dayAt(place)) === day);
    const id = points.idOf(listed[newest]!);
    const point = points.readOrNull(listed[newest]!);
    const bytes = point === null || !point.sealed ? null : point.descriptor.bytes;
    const known = days.get(day) ?? (id === null ? undefined : { points: 0, newest: id, bytes });
    if (known !== undefined) days.set(day, { ...known, points: known.points + newest - before });
    copies += (bytes ?? 0) * (newest - before);
    newest = before;
  }
  const rows = Array.from(days, ([day, row]) => ({ day, ...row }));
  return { days: rows.toSorted((a, b) => (a.day < b.day ? 1 : -1)), total: listed.length, copies_bytes: copies };
}

/** Returns the last index below `from` with another day, or -1: doubles its steps until that day, then halves them. */
async function lastOfOtherDay(from: number, isSameDay: (place: number) => Promise<boolean>): Promise<number> {
  let [other, same] = [-1, from];
  for (let step = 1; from - step >= 0; step *= 2) {
    if (!(await isSameDay(from - step))) {
      other = from - step;
      break;
    }
    same = from - step;
  }
  while (same - other > 1) {
    const middle = Math.floor((same + other) / 2);
    if (await isSameDay(middle)) same = middle;
    else other = middle;
  }
  return other;
}

function dayOf(date: Date): string {
  const two = (number: number): string => String(number).padStart(2, "0");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
}

/** Describes a point for lists. An unsealed point without its tree is damaged. */
function listed({ points }: Workspace, point: Point): SavePoint {
  const shown = publicPoint(point);
  return point.sealed || heldTreeProblem(points, point) === null ? shown : { ...shown, integrity_state: "damaged" };
}

/** Lists the points, the snapshots, or both, that changed a path, newest first, each with its change. */
export async function why(hand: Looking, path: PathInput, options: WhyOptions): Promise<WhyResult> {
  const { workspace } = hand;
  const { in: states = "points" } = options;
  const raw = normalizeTyped(path);
  if (raw.length === 0)
    throw new CairnError("usage", "the path is the whole workspace", {
      hint: advice`see ${call("history")}, or name a path`,
    });
  if (states !== "points") requireOwner();
  const found = states === "backups" ? NOTHING : await changesOfPath(workspace, raw, options);
  return {
    ...displayPath(raw),
    changes: found.points.map((point, at) => ({ save_point: publicPoint(point), ...found.changes[at]! })),
    damaged: found.damaged,
    truncated: found.truncated,
    ...(states === "points" ? {} : { backups: await backupsOf(hand, raw, options) }),
  };
}

const NOTHING: Found = { points: [], changes: [], damaged: [], truncated: false };

async function backupsOf(hand: Looking, path: Uint8Array, options: WhyOptions): Promise<ChangesInBackups> {
  const { whyInBackups } = await import("./why-in-backups.ts");
  return hand.backups(hand.workspace, options, async (access) =>
    whyInBackups(hand.workspace, access, { ...options, path }),
  );
}

async function changesOfPath(workspace: Workspace, raw: Uint8Array, options: WhyOptions): Promise<Found> {
  const asked = { ...options, limit: options.limit ?? 0, all: true, path: raw, from: null, to: null };
  const list = async (): Promise<Found> => {
    const changes = new PathChanges(workspace, raw, { signal: options.signal, withUndo: true });
    const found = await find(workspace, asked, changes);
    for (const [at, change] of found.changes.entries()) {
      // `at + 1` is the state that the point changed, so the search starts after it.
      const same = await changes.sameAs(found.points[at]!, found.points.slice(at + 2));
      if (same !== undefined) change.back_to = same.descriptor.save_point_id;
    }
    return found;
  };
  return sealingIfNeeded(workspace, list, options);
}

/** Lists by the trees that points hold. If they do not tell the changes at the path, seals all points once. */
async function sealingIfNeeded(
  workspace: Workspace,
  list: () => Promise<Found>,
  call: WorkspaceCallOptions,
): Promise<Found> {
  try {
    return await workspace.engine.reading(list, call);
  } catch (error) {
    if (toCairnError(error).details?.["unsealed"] === undefined) throw error;
    await ensureSealed(workspace, call);
    workspace.points.refresh();
    return workspace.engine.reading(list, call);
  }
}

function moment(options: HistoryOptions, name: "since" | "until"): number | null {
  const text = options[name];
  if (text === undefined) return null;
  const found = momentOf(text, Date.now(), name === "since" ? "first" : "last");
  if (found !== null) return found;
  throw new CairnError("usage", `${name} must be a time; found ${JSON.stringify(text.slice(0, 80))}`, {
    hint: 'for example yesterday, "2 hours ago", 14:00, 2026-11-23 or "2026-11-23 14:00"',
  });
}

interface Asked extends Pick<HistoryOptions, "grep" | "tag" | "signal" | "skip"> {
  /** 0: all points */
  limit: number;
  /** true: undo points too */
  all: boolean;
  path: Uint8Array | null;
  from: number | null;
  to: number | null;
}

interface Found {
  points: Point[];
  /** one for each point, if a path was given */
  changes: EntryChange[];
  damaged: DamagedPoint[];
  truncated: boolean;
}

async function find(workspace: Workspace, asked: Asked, by?: PathChanges): Promise<Found> {
  const { limit, path } = asked;
  if (!Number.isInteger(limit) || limit < 0)
    throw new CairnError("usage", `the limit must be a whole number, or 0 for all; found ${limit}`);
  let skip = asked.skip ?? 0;
  if (!Number.isInteger(skip) || skip < 0)
    throw new CairnError("usage", `skip must be a whole number of points; found ${skip}`);
  const { points } = workspace;
  const shown = shownOf(workspace, asked.all);
  if (!isFiltered(asked)) {
    const { damaged, ...list } = points.list({ ...shown, limit, skip });
    return { ...list, changes: [], damaged: damaged.map(shownDamage) };
  }
  const call = { signal: asked.signal, withUndo: asked.all };
  const changes = by ?? (path === null ? null : new PathChanges(workspace, path, call));
  const found: Found = { points: [], changes: [], damaged: [], truncated: false };
  const fits = filterOf(asked);
  for await (const listed of points.texts(points.listed(shown), newPacer(asked.signal))) {
    for (const known of listed) {
      if ("row" in known && !fits(known.row)) continue;
      const isSure = "row" in known && changes === null && asked.tag === undefined;
      if (isSure && skip-- > 0) continue;
      const read = "row" in known ? (known.point ?? points.readOrDamage(known.sequence)) : known;
      if (read !== null && "problem" in read) found.damaged.push(shownDamage(read));
      if (read === null || "problem" in read || (asked.tag !== undefined && !read.tags.includes(asked.tag))) continue;
      const change = (await changes?.of(read)) ?? null;
      if ((changes !== null && change === null) || (!isSure && skip-- > 0)) continue;
      found.truncated = limit > 0 && found.points.length === limit;
      if (found.truncated) return found;
      found.points.push(read);
      if (change !== null) found.changes.push(change);
    }
  }
  return found;
}

function shownDamage({ id, problem }: Damage): DamagedPoint {
  return { save_point_id: id, detail: problem.message, hint: problem.hint ?? "see `cairn doctor`" };
}

function isFiltered({ grep, tag, path, from, to }: Asked): boolean {
  return [grep, tag, path, from, to].some((each) => (each ?? null) !== null);
}

/** Returns the options for listing: undo points only with `all`, but always the point that the folder is based on. */
function shownOf(workspace: Workspace, all: boolean): Pick<ListOptions, "savesAnd"> {
  return all ? {} : { savesAnd: workspace.state().head };
}

/** Returns a filter of rows, which are given newest first. Ignores the case of a tag. */
function filterOf({ grep = "", tag, from, to }: Asked): (row: TextRow) => boolean {
  const [text, tagged] = [folded(grep), tag === undefined ? "" : BREAK + folded(tag) + BREAK];
  const now = Date.now();
  let after: number | null = null;
  const isTimed = from !== null || to !== null;
  const fitsTime = (row: TextRow): boolean => {
    const time = row.time();
    if (time <= now) after = time;
    // A point dated in the future by a wrong clock was made before the point after it.
    const counted = after ?? time;
    return (from === null || counted >= from) && (to === null || counted <= to);
  };
  return (row) => (!isTimed || fitsTime(row)) && row.text.includes(tagged) && row.text.includes(text);
}
