import { append } from "../../append.ts";
import type { Conversion, EngineReason, Incomplete, StatusResult } from "../../contract/index.ts";
import { listedNames } from "../../fs/paths/safe-path.ts";
import type { Schedule } from "../../verbs/schemas.ts";
import type { Shorten } from "../shorten.ts";
import {
  formatAge,
  formatBytes,
  formatCounts,
  formatDuration,
  limited,
  plural,
  printable,
  shownPath,
} from "./format.ts";
import { isTorn, renderLeftOut } from "./points.ts";
import { describeSchedule } from "./schedule.ts";
import type { Style } from "./style.ts";
import { renderTable } from "./table.ts";

export interface StatusView {
  status: StatusResult;
  schedule: Schedule;
  isRun: boolean;
  shorten: Shorten;
  save: string;
  style: Style;
  now: number;
}

export async function renderStatus(view: StatusView): Promise<string> {
  const { status, style, shorten } = view;
  const state = describeState(view);
  const rows = [
    ["folder", printable(status.workspace.path)],
    ["state", state],
    ["head", describeHead(view)],
    ["backup", describeBackup(view)],
    ["schedule", describeSchedule(view.schedule, view.now, view.isRun)],
    ["watched", status.watched ? "yes, by the daemon" : "no"],
    ["engine", status.engine_reasons.find(({ chosen }) => chosen)?.engine ?? "unknown"],
    [
      "store",
      `${plural(status.store.points, "point")}, ${formatBytes(status.store.bytes)}, in ${printable(status.workspace.control_directory)}`,
    ],
  ];
  const lines = await renderTable(rows.map(([name = "", value = ""]) => [style.dim(name), value]));
  for (const degradation of status.degraded)
    lines.push(`${style.yellow("note")} at the last save, ${degradation.what}: ${printable(degradation.reason)}`);
  if (status.missing.length > 0)
    lines.push(
      `${style.red("MISSING")}: the content of ${plural(status.missing.length, "point")} is missing: ${listedNames(status.missing.map(shorten))}; \`cairn doctor\` says why`,
    );
  append(lines, renderIncomplete(status.head_incomplete, style));
  for (const holder of status.holders ?? []) {
    lines.push(
      `${style.yellow("open for writing")} ${printable(holder.path)} by ${printable(holder.command)} (${holder.pid})`,
    );
  }
  if (status.ignored.length > 0) {
    lines.push(`${style.yellow("ignored")}: the rules leave out ${plural(status.ignored.length, "entry")}`);
    const paths = status.ignored.map((entry) => `  ${printable(entry.path)}`);
    append(lines, limited(paths, 10, style));
  }
  append(lines, renderRecovered(view));
  return lines.join("\n");
}

const RECENT_MS = 24 * 3600 * 1000;

/** Shows the last recovery, for a day or until the next save; `--json` has earlier ones. */
function renderRecovered({ status: { recovered, last_save_at: savedAt }, style, now }: StatusView): string[] {
  const newest = recovered.at(-1)?.at;
  if (newest === undefined || now - Date.parse(newest) > RECENT_MS) return [];
  if (savedAt !== null && Date.parse(savedAt) > Date.parse(newest)) return [];
  const last = recovered.filter(({ at }) => at === newest);
  // The detail names the operation, and whether it was finished or taken back.
  const lines = last.flatMap(({ detail, kept, incomplete }) => [
    `${style.yellow("recovered")} ${formatAge(newest, now)}: ${printable(detail)}`,
    ...(incomplete === undefined
      ? kept.map((entry) => `  kept as it was found: ${printable(entry.path)}`)
      : renderLeftOut(incomplete.left_out, style, incomplete.count)),
  ]);
  const earlier = recovered.length - last.length;
  return earlier === 0 ? lines : [...lines, style.dim(`  recovered earlier (${earlier}): cairn status --json`)];
}

function describeState(view: StatusView): string {
  const { status, style } = view;
  if (status.head === null) return style.yellow(`never saved; to save it: ${view.save}`);
  if (status.clean && status.head_incomplete !== null)
    return style.yellow("unchanged since the last save point, which is incomplete");
  if (status.clean) return style.green("clean");
  const { changes, not_kept: hidden } = status;
  const isChanged = changes.added + changes.modified + changes.removed > 0;
  const counts = isChanged || hidden.count === 0 ? [formatCounts(changes)] : [];
  if (hidden.count > 0) counts.push(`${plural(hidden.count, "entry")} no longer saved`);
  return style.yellow(`changed since the last save point: ${counts.join(", ")}`);
}

/** Names the point of the last backup, and the changes since. */
function describeBackup({ status, shorten, now, style }: StatusView): string {
  const { last_backup: last, clean, changes } = status;
  if (last === null) return "never";
  const done = `${formatAge(last.at, now)}, of ${style.bold(shorten(last.save_point_id))}`;
  const since = last.saved_since === 0 ? [] : [plural(last.saved_since, "save point")];
  const missing = clean ? since : [...since, formatCounts(changes)];
  return missing.length === 0 ? done : `${done}; not in it: ${style.yellow(missing.join(", "))}`;
}

function describeHead(view: StatusView): string {
  const { status, style, shorten } = view;
  if (status.head === null) return "none";
  const saved = status.last_save_at === null ? "" : `, last saved ${formatAge(status.last_save_at, view.now)}`;
  const head = style.bold(shorten(status.head));
  if (!status.detached || status.latest === null) return head + saved;
  return `${head}${saved} ${style.yellow(`(restored; the latest point is ${shorten(status.latest)})`)}`;
}

/** Reports the conversion of a folder in place, and the path of the original. */
export function renderConversion({ original, entries, bytes, duration_ms: duration }: Conversion): string[] {
  return [
    `converted into a subvolume in place: ${plural(entries, "entry")}, ${formatBytes(bytes)}, copied and compared in ${formatDuration(duration)}`,
    `the original folder is now ${printable(original)}; remove it when you do not need it`,
  ];
}

export function renderEngineReasons(reasons: readonly EngineReason[], style: Style): string[] {
  return reasons.flatMap((reason) => {
    const mark = reason.chosen ? style.green("*") : " ";
    const line = `${mark} ${style.bold(reason.engine)}: ${printable(reason.reason)}`;
    return reason.hint === undefined ? [line] : [line, `    ${printable(reason.hint)}`];
  });
}

/** Lists entries of the folder that a save point lacks; empty if it is complete. */
export function renderIncomplete(incomplete: Incomplete | null, style: Style): string[] {
  if (incomplete === null) return [];
  const { count, left_out: leftOut } = incomplete;
  const what =
    count === leftOut.length && count > 0 && leftOut.every(isTorn)
      ? "was saved, but may be torn"
      : "could not be recorded in the save point";
  return [
    `${style.yellow("incomplete")}: ${count === 0 ? "some entries" : plural(count, "entry")} of the folder ${what}`,
    ...limited(
      leftOut.map((entry) => `  ${shownPath(entry.path)}  ${style.dim(printable(entry.detail))}`),
      10,
      style,
    ),
  ];
}
