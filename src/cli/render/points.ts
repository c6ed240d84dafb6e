import type { DamagedPoint, HistoryResult, LeftOut, SavePoint, SaveResult } from "../../contract/index.ts";
import {
  firstLine,
  formatMoment,
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
  /** The command that comes back to this point. */
  again: string;
  style: Style;
}

export function renderSave(view: SaveView): string {
  const { result, shorten, style } = view;
  const id = style.bold(shorten(result.save_point_id));
  if (view.skipped) return `nothing changed since ${id}; no point was made (${formatDuration(result.duration_ms)})`;
  const message = result.message === "" ? "" : `  ${firstLine(result.message)}`;
  const counts = result.changes === null ? "changes not counted" : formatCounts(result.changes);
  const changed = result.unchanged ? "nothing changed" : counts;
  const facts =
    result.entries === null || result.bytes === null
      ? `held whole by ${result.effective_engine} in ${formatDuration(result.duration_ms)}; read and counted when something needs it`
      : result.entries === 0 && result.changes !== null && result.changes.removed === 0
        ? `the folder is empty · stored ${formatBytes(result.bytes_stored)} in ${formatDuration(result.duration_ms)}`
        : `${changed} · ${plural(result.entries, "entry")}, ${formatBytes(result.bytes)} in all · stored ${formatBytes(result.bytes_stored)} in ${formatDuration(result.duration_ms)}`;
  const lines = [
    `${style.green("saved")} ${id}${message}`,
    `  ${facts}`,
    ...result.degraded.map(
      (degradation) => `  ${style.yellow("note")} ${degradation.what}: ${printable(degradation.reason)}`,
    ),
    ...renderLeftOut(result.left_out, style),
    `  come back to it: ${style.cyan(view.again)}`,
  ];
  return lines.join("\n");
}

const LEFT_OUT_LIMIT = 20;

/** Lists what was not recorded or not restored, with how many that is in all; nothing when the list is empty. */
export function renderLeftOut(leftOut: readonly LeftOut[], style: Style, count = leftOut.length): string[] {
  if (leftOut.length === 0) return [];
  const lines = leftOut.map((entry) => {
    const aspects = entry.aspects === undefined ? "" : ` (${entry.aspects.join(", ")})`;
    // The whole, or the folder itself.
    return `    ${shownPath(entry.path)}${aspects}: ${entry.reason.replaceAll("_", " ")}; ${printable(entry.detail)}`;
  });
  return [`  ${style.yellow(`left out: ${plural(count, "entry")}`)}`, ...limited(lines, LEFT_OUT_LIMIT, style)];
}

export interface HistoryView {
  result: HistoryResult;
  /** Text where there is nothing to list. */
  empty: string;
  shorten: Shorten;
  style: Style;
  now: number;
}

export async function renderHistory(view: HistoryView): Promise<string> {
  const { result, shorten, style } = view;
  if (result.save_points.length === 0 && result.damaged.length === 0) return view.empty;
  const rows = result.save_points.map((point) => [
    point.save_point_id === result.head ? style.green("*") : " ",
    style.bold(shorten(point.save_point_id)),
    style.dim(formatMoment(point.created_at, view.now)),
    point.sealed ? formatBytes(point.bytes_stored) : style.dim("held"),
    describePoint(point, style),
  ]);
  const lines = await renderTable(rows, [3]);
  if (result.head !== null && result.head !== result.latest) {
    lines.push(style.yellow(`the folder stands at ${shorten(result.head)} (*), which is not the latest point`));
  }
  if (result.truncated) lines.push(style.dim("… there are more (-n 0 lists all)"));
  return [...lines, ...renderDamaged(result.damaged, style)].join("\n");
}

function describePoint(point: SavePoint, style: Style): string {
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

/** A message says what was wanted, so only a command that failed is told beside it. */
function describeFailure({ cause }: SavePoint, style: Style): string[] {
  const exit = cause["exit_code"];
  return typeof exit === "number" && exit !== 0 ? [style.red(`exit ${exit}`)] : [];
}

/** `before a restore`, `command npm test, exit 1`, `tool_call bash`. */
export function describeCause(point: SavePoint): string {
  const { cause } = point;
  // A program may call a point of its own so, which was made of what came after.
  if ((cause.kind === "restore" || cause.kind === "undo") && typeof cause["restored_to"] === "string")
    return `before ${cause.kind === "undo" ? "an undo" : "a restore"}`;
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
