import type {
  ChangesInBackups,
  DamagedPoint,
  EntryChange,
  HistoryDaysResult,
  HistoryResult,
  LeftOut,
  SavePoint,
  SaveResult,
  WhyOptions,
  WhyResult,
} from "../../contract/index.ts";
import { append } from "../../append.ts";
import {
  firstLine,
  formatMinute,
  formatBytes,
  formatCounts,
  formatDuration,
  limited,
  plural,
  printable,
  shownPath,
} from "./format.ts";
import type { Shorten } from "../shorten.ts";
import type { Style } from "./style.ts";
import { renderTable } from "./table.ts";

export interface SaveView {
  result: SaveResult;
  /** True: nothing had changed and no point was made. */
  skipped: boolean;
  shorten: Shorten;
  /** The command that restores this point. */
  again: string;
  style: Style;
}

export function renderSave(view: SaveView): string {
  const { result, shorten, style } = view;
  const id = style.bold(shorten(result.save_point_id));
  if (view.skipped) return `nothing changed since ${id}; no point was made (${formatDuration(result.duration_ms)})`;
  const message = result.message === "" ? "" : `  ${firstLine(result.message)}`;
  const counts = result.changes === null ? "changes not counted" : formatCounts(result.changes);
  const { count } = result.not_kept;
  const hidden = count === 0 ? "" : `${plural(count, "entry")} no longer saved`;
  const changed =
    result.unchanged || (counts === "nothing" && hidden === "")
      ? "nothing changed"
      : [counts, hidden].filter((each) => each !== "").join(", ");
  const images = result.bytes_stored === 0 ? "" : `, ${formatBytes(result.bytes_stored)} written for databases in use,`;
  const facts =
    result.entries === null || result.bytes === null
      ? `${result.changes === null ? "" : `${changed} · `}cloned by ${result.effective_engine}${images} in ${formatDuration(result.duration_ms)}; read into the store later`
      : result.entries === 0 && result.changes !== null && result.changes.removed === 0
        ? `the folder is empty · stored ${formatBytes(result.bytes_stored)} in ${formatDuration(result.duration_ms)}`
        : `${changed} · ${plural(result.entries, "entry")}, ${formatBytes(result.bytes)} in all · stored ${formatBytes(result.bytes_stored)} in ${formatDuration(result.duration_ms)}`;
  const torn = result.left_out.filter(isTorn);
  const lacking = result.left_out.filter((entry) => !isTorn(entry));
  const lines = [
    `${style.green("saved")} ${id}${message}`,
    `  ${facts}`,
    ...result.degraded.map(
      (degradation) => `  ${style.yellow("note")} ${degradation.what}: ${printable(degradation.reason)}`,
    ),
    ...renderLeftOut(torn, style, torn.length, "saved, but may be torn"),
    ...renderLeftOut(lacking, style),
    `  come back to it: ${style.cyan(view.again)}`,
  ];
  return lines.join("\n");
}

const LEFT_OUT_LIMIT = 20;

/** True for an entry that a save recorded although it changed meanwhile. */
export const isTorn = ({ reason }: LeftOut): boolean => reason === "changing";

/** Lists entries that were not recorded or restored, with their number; empty for an empty list. */
export function renderLeftOut(
  leftOut: readonly LeftOut[],
  style: Style,
  count = leftOut.length,
  heading = "left out",
): string[] {
  if (leftOut.length === 0) return [];
  const lines = leftOut.map((entry) => {
    const aspects = entry.aspects === undefined ? "" : ` (${entry.aspects.join(", ")})`;
    // The path of the folder itself is empty.
    return `    ${shownPath(entry.path)}${aspects}: ${entry.reason.replaceAll("_", " ")}; ${printable(entry.detail)}`;
  });
  return [`  ${style.yellow(`${heading}: ${plural(count, "entry")}`)}`, ...limited(lines, LEFT_OUT_LIMIT, style)];
}

export interface HistoryView {
  result: HistoryResult;
  /** Points of each line, newest first; for several points only their number is printed. */
  rows: readonly (readonly SavePoint[])[];
  empty: string;
  shorten: Shorten;
  style: Style;
  now: number;
}

/**
 * Returns the points of a history as lines. Consecutive saves without a change and without a message become one line.
 */
export function foldSaves({ save_points: points, head }: HistoryResult): SavePoint[][] {
  const rows: SavePoint[][] = [];
  let isOpen = false;
  for (const point of points) {
    const isPlain = point.message === "" && point.tags.length === 0 && !point.pinned && point.complete;
    const isWell = point.integrity_state !== "damaged" && (point.cause["exit_code"] ?? 0) === 0;
    const isFolded = isPlain && isWell && point.unchanged && point.save_point_id !== head;
    if (isFolded && isOpen) rows.at(-1)!.push(point);
    else rows.push([point]);
    isOpen = isFolded;
  }
  return rows;
}

export async function renderHistory(view: HistoryView): Promise<string> {
  const { result, shorten, style } = view;
  const { save_points: points, undo, head } = result;
  if (points.length === 0 && result.damaged.length === 0) return view.empty;
  const lines = view.rows.map((row) =>
    row.length > 1
      ? [" ", "", "", "", style.dim(`(${plural(row.length, "save")} without a change)`)]
      : pointRow(row[0]!, view),
  );
  if (undo !== null && !points.some((point) => point.save_point_id === undo.save_point_id)) {
    const at = view.rows.findIndex(([point]) => point!.save_point_id === head);
    const row = [...pointRow(undo, view), style.dim(`\`cairn ${result.undo_by ?? "undo"}\` goes back to it`)];
    lines.splice(Math.max(at, 0), 0, [...row.slice(0, 4), row.slice(4).join("  ")]);
  }
  const heading = ["", "point", "saved", "stored", ""].map((word) => style.dim(word));
  const table = lines.length === 0 ? [] : await renderTable([heading, ...lines], [3]);
  if (head !== null && head !== result.latest)
    table.push(style.yellow(`the folder is based on ${shorten(head)} (*), which is not the latest point`));
  const isCut = view.rows.reduce((sum, row) => sum + row.length, 0) < points.length;
  if (result.truncated || isCut) table.push(style.dim("… there are more (-n 0 lists all)"));
  return [...table, ...renderDamaged(result.damaged, style)].join("\n");
}

function pointRow(point: SavePoint, { result, shorten, style, now }: HistoryView): string[] {
  const changes = result.changes?.[result.save_points.indexOf(point)];
  const counts = changes === undefined ? [] : [changes === null ? "changes not counted" : formatCounts(changes)];
  return [
    point.save_point_id === result.head ? style.green("*") : " ",
    style.bold(shorten(point.save_point_id)),
    style.dim(formatMinute(point.created_at, now)),
    point.sealed
      ? formatBytes(point.bytes_stored)
      : style.dim(point.integrity_state === "damaged" ? "MISSING" : "held"),
    [describePoint(point, style), ...counts.map(style.dim)].join("  "),
  ];
}

/** The days of a history, each with the number of its points. */
export async function renderDays(
  { days }: HistoryDaysResult,
  { shorten, style, empty }: Pick<HistoryView, "shorten" | "style" | "empty">,
): Promise<string> {
  if (days.length === 0) return empty;
  const heading = ["day", "points", "newest"].map((word) => style.dim(word));
  const rows = days.map(({ day, points, newest }) => [day, String(points), style.bold(shorten(newest))]);
  return (await renderTable([heading, ...rows], [1])).join("\n");
}

/** The points that changed a path, each with its change and its cause. */
export async function renderWhy(
  { path, changes, truncated, damaged, backups }: WhyResult,
  { states = "points", shorten, style, now }: WhyView,
): Promise<string> {
  const rows = changes.map(({ save_point: point, ...change }) => [
    style.bold(shorten(point.save_point_id)),
    style.dim(formatMinute(point.created_at, now)),
    [
      describeChange(change, style),
      ...(change.back_to === undefined ? [] : [style.dim(`back as in ${shorten(change.back_to)}`)]),
    ].join("  "),
    [
      ...(point.message === "" ? [] : [firstLine(point.message)]),
      // The message of an undo point repeats its cause.
      ...(point.cause.kind === "person" || isUndoPoint(point) ? [] : [style.dim(`(${describeCause(point)})`)]),
      ...point.tags.map((tag) => style.cyan(`#${printable(tag)}`)),
    ].join("  "),
  ]);
  const more = style.dim("… there are more (-n 0 lists all)");
  const lines = rows.length === 0 ? [`no save point has ${printable(path)}`] : await renderTable(rows);
  if (truncated) lines.push(more);
  append(lines, renderDamaged(damaged, style));
  if (backups === undefined) return lines.join("\n");
  const shown = await changesInBackups(backups, { shorten, style, now });
  if (shown.length === 0) shown.push(`no backup of this folder has ${printable(path)}`);
  if (backups.truncated) shown.push(more);
  for (const { snapshot_id: id, path: lost, detail } of backups.damaged)
    shown.push(style.red(`${printable(lost)} of snapshot ${id.slice(0, 8)} cannot be read: ${printable(detail)}`));
  return (states === "backups" ? shown : [...lines, "", style.dim("in backups"), ...shown]).join("\n");
}

type WhyView = Pick<HistoryView, "shorten" | "style" | "now"> & { states?: WhyOptions["in"] };

async function changesInBackups({ changes }: ChangesInBackups, { shorten, style, now }: WhyView): Promise<string[]> {
  const rows = changes.map(({ snapshot, ...change }) => [
    style.bold(snapshot.snapshot_id.slice(0, 8)),
    style.dim(formatMinute(snapshot.created_at, now)),
    describeChange(change, style),
    [
      ...(snapshot.save_point_id === null ? [] : [style.dim(`(of save point ${shorten(snapshot.save_point_id)})`)]),
      printable(snapshot.hostname),
      ...snapshot.tags.map((tag) => style.cyan(`#${printable(tag)}`)),
    ].join("  "),
  ]);
  return rows.length === 0 ? [] : renderTable(rows);
}

const CONTENT: ReadonlySet<string> = new Set(["content", "type", "target"]);

/** `added 12 B`, `removed`, `modified, mode 1 KiB → 2 KiB`, `mode`. */
function describeChange(
  { change, aspects, size_before: before, size_after: after }: EntryChange,
  style: Style,
): string {
  if (change === "removed") return style.red(change);
  if (change === "added") return style.green(change) + (after === undefined ? "" : ` ${formatBytes(after)}`);
  const isContent = aspects.some((aspect) => CONTENT.has(aspect));
  const others = aspects.filter((aspect) => !CONTENT.has(aspect));
  // Times change with everything else, so they are left out beside other changes.
  const told = isContent || others.length > 1 ? others.filter((aspect) => aspect !== "times") : others;
  const words = [...(isContent ? [change] : []), ...told].join(", ");
  const sizes = before === undefined || after === undefined || before === after ? [] : [before, after];
  return [style.yellow(words), sizes.map(formatBytes).join(" → ")].join(" ").trimEnd();
}

export function describePoint(point: SavePoint, style: Style): string {
  const parts: string[] = [];
  if (point.message !== "") parts.push(firstLine(point.message), ...describeFailure(point, style));
  else if (point.cause.kind !== "person") parts.push(style.dim(`(${describeCause(point)})`));
  else if (point.unchanged) parts.push(style.dim("(nothing changed)"));
  for (const tag of point.tags) parts.push(style.cyan(`#${printable(tag)}`));
  if (point.pinned) parts.push(style.cyan("pinned"));
  if (!point.complete) parts.push(style.yellow("incomplete"));
  if (point.integrity_state === "damaged") parts.push(style.red("damaged"));
  return parts.join("  ");
}

/** Returns the exit status of a failed command; the point's message already describes the rest of its cause. */
function describeFailure({ cause }: SavePoint, style: Style): string[] {
  const exit = cause["exit_code"];
  return typeof exit === "number" && exit !== 0 ? [style.red(`exit ${exit}`)] : [];
}

/** Kinds of causes of undo points. A program may give its own points such a kind, so `isUndoPoint` checks more. */
const OPERATIONS: Readonly<Record<string, string>> = {
  restore: "a restore",
  rewind: "a rewind",
  adopt: "an adoption",
  undo: "an undo",
  redo: "a redo",
};

function isUndoPoint({ cause }: SavePoint): boolean {
  return Object.hasOwn(OPERATIONS, cause.kind) && typeof cause["restored_to"] === "string";
}

/** `before a restore`, `command npm test, exit 1`, `tool_call bash`. */
export function describeCause(point: SavePoint): string {
  const { cause } = point;
  if (isUndoPoint(point)) return `before ${OPERATIONS[cause.kind]}`;
  const words = Array.isArray(cause["command"]) ? cause["command"].join(" ") : cause["command"];
  const tool = typeof cause["tool"] === "string" ? ` ${firstLine(cause["tool"])}` : "";
  if (typeof words !== "string") return `${printable(cause.kind)}${tool}`;
  const exit = typeof cause["exit_code"] === "number" ? `, exit ${cause["exit_code"]}` : "";
  const phase = cause["phase"] === "before" ? "before " : "";
  return `${phase}${printable(cause.kind)} ${firstLine(words)}${exit}`;
}

function renderDamaged(damaged: readonly DamagedPoint[], style: Style): string[] {
  return damaged.map((point) => {
    const name = point.save_point_id ?? "a point";
    return `${style.red("damaged")} ${name}: ${printable(point.detail)}\n  ${printable(point.hint)}`;
  });
}
