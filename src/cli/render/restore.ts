import type { NamedPath, PlanEntry, RestorePlan, RestoreResult } from "../../contract/index.ts";
import {
  applyLine,
  formatBytes,
  formatCount,
  formatCounts,
  formatDuration,
  formatMinute,
  limited,
  plural,
  printable,
  shownPath,
} from "./format.ts";
import { renderLeftOut } from "./points.ts";
import type { Shorten } from "../shorten.ts";
import type { Style } from "./style.ts";

export interface RestoreView {
  result: RestoreResult;
  shorten: Shorten;
  /** The command that reverts the restore. */
  undo: string;
  /** Set for an undo and a redo. */
  reverted?: "undo" | "redo";
  /** The other folder into which the point was restored. */
  to?: string;
  style: Style;
}

export function renderRestore(view: RestoreView): string {
  const { result, style, shorten } = view;
  if (result.restored_to === null) return "there is no save point yet: nothing was restored";
  const where = view.to === undefined ? "" : ` into ${printable(view.to)}`;
  const isNothing = result.left_out.some(({ reason }) => reason === "damaged") && isUnchanged(result);
  const lines = [
    heading(view, where, isNothing),
    ...renderTurns(result, style),
    `  ${describeCounts(view)} · ${formatDuration(result.duration_ms)}`,
    ...renderChanged(result, style),
    ...(result.through_sqlite ?? []).map(({ path }) => `  written through SQLite: ${printable(path)}`),
    ...renderLeftOut(result.left_out, style),
    ...renderUnlinked(result.unlinked, style),
    ...renderRefs(result.refs, style),
  ];
  // If nothing was restored, the undo point is only in the list of points.
  if (result.undo_id !== null && !isNothing) {
    lines.push(
      `  the state before is saved as ${style.bold(shorten(result.undo_id))}; take it back: ${style.cyan(view.undo)}`,
    );
  }
  return lines.join("\n");
}

/** For example "restored 5f6e7d8c", or "undone: the restore of 5f6e7d8c (12:03)". */
function heading({ result, reverted, style, shorten }: RestoreView, where: string, isNothing: boolean): string {
  const { operation, restored_to: to } = result;
  if (operation !== undefined && reverted !== undefined) {
    const at = formatMinute(operation.at, Date.now());
    const what = `the ${operation.kind} of ${style.bold(shorten(operation.restored_to))} (${at})`;
    const done = reverted === "undo" ? "undone:" : "redone:";
    return `${isNothing ? style.red(`not ${done}`) : style.green(done)} ${what}`;
  }
  // A change of turns is relative: without a step the folder need not equal the state before them.
  if (result.turns !== undefined && result.left_out.length === 0 && isUnchanged(result)) return "nothing to take back";
  return `${isNothing ? style.red("not restored:") : style.green("restored")} ${style.bold(shorten(to!))}${where}`;
}

const SHOWN_TURNS = 5;

function renderTurns({ turns = [] }: RestoreResult, style: Style): string[] {
  const lines = turns.map(
    ({ turn_id: id, prompt, unchanged }) =>
      `  turn ${style.bold(id)}: ${prompt === null ? style.dim("(no prompt)") : printable(prompt)}${unchanged === true ? style.dim(" (changed nothing)") : ""}`,
  );
  return limited(lines, SHOWN_TURNS, style);
}

/** Most names in `changed`. */
const MOST_NAMES = 10;

/** The names that a rewind changed. Other verbs were given a point, whose names a plan and a diff show. */
function renderChanged({ turns, changes, changed = [] }: RestoreResult, style: Style): string[] {
  if (turns === undefined || changes === null) return [];
  const more = changes.created + changes.updated + changes.deleted + changes.metadata - changed.length;
  const lines = changed.map((entry) => `  ${entryLine(entry, style)}`);
  // A shorter list lacks only entries whose times alone changed.
  return more > 0 && lines.length >= MOST_NAMES ? [...lines, style.dim(`    … and ${formatCount(more)} more`)] : lines;
}

const UNLINKED_LIMIT = 20;

function renderUnlinked(unlinked: RestoreResult["unlinked"], style: Style): string[] {
  if (unlinked.length === 0) return [];
  const lines = unlinked.map(({ path }) => `    ${printable(path)}`);
  const head = `  no longer hard-linked to names that were not restored: ${plural(unlinked.length, "entry")}`;
  return [head, ...limited(lines, UNLINKED_LIMIT, style)];
}

/** For example `.git refs/heads/main: 1a2b3c4 → 5d6e7f8`. */
function renderRefs(refs: RestoreResult["refs"], style: Style): string[] {
  if (refs === undefined) return [];
  const short = (value: string | null): string => {
    const shown = value === null ? "none" : printable(value);
    return /^[0-9a-f]{40,}$/.test(shown) ? shown.slice(0, 7) : shown;
  };
  const lines = refs.map(
    ({ path, ref, before, after }) => `    ${printable(path)} ${printable(ref)}: ${short(before)} → ${short(after)}`,
  );
  return ["  refs of git:", ...limited(lines, UNLINKED_LIMIT, style)];
}

function describeCounts({ result, reverted, to }: RestoreView): string {
  const { changes, left_out: leftOut } = result;
  if (changes === null) return "the whole folder was swapped with a copy of the point";
  if (!isUnchanged(result)) return formatCounts(changes);
  if (leftOut.length > 0) return "nothing was changed";
  if (reverted === undefined) return to === undefined ? "nothing had to change" : "it has no entry";
  return `nothing of it is left to ${reverted}; \`cairn ${reverted}\` again goes further ${reverted === "undo" ? "back" : "on"}`;
}

function isUnchanged({ changes }: RestoreResult): boolean {
  return changes !== null && changes.created + changes.updated + changes.deleted + changes.metadata === 0;
}

const PLAN_LIMIT = 200;
export const SIGNS = { create: "+", update: "~", delete: "-", metadata: "m", keep: "=" } as const;

/**
 * `to`: the name of the state that the plan leads to. `most`: the lines that fit above a question, which is asked in place
 * of naming the plan's id.
 */
export function renderPlan(plan: Omit<RestorePlan, "restored_to">, to: string, style: Style, most?: number): string {
  // Entries that are kept are in the list of entries already.
  const kept = new Set(plan.entries.filter(({ action }) => action === "keep").map(nameOf));
  const lacking = renderLeftOut(
    plan.left_out.filter((each) => !kept.has(nameOf(each))),
    style,
  );
  if (plan.entries.length === 0) return [`a restore to ${to} would change nothing`, ...lacking].join("\n");
  const lines = plan.entries.map((entry) => entryLine(entry, style));
  const holders = plan.holders.map(
    (holder) => `  ${style.yellow("open")} ${printable(holder.path)} by ${printable(holder.command)} (${holder.pid})`,
  );
  const counts: Record<string, number> = {};
  for (const entry of plan.entries) counts[entry.action] = (counts[entry.action] ?? 0) + 1;
  const words = {
    create: "to create",
    update: "to update",
    delete: "to delete",
    metadata: "with other metadata",
  };
  const summary = Object.entries(words).flatMap(([action, text]) =>
    counts[action] === undefined ? [] : [`${formatCount(counts[action])} ${text}`],
  );
  const { keep = 0 } = counts;
  const changing = plan.entries.length - keep;
  const changes = changing === 0 ? "nothing" : `${plural(changing, "entry")}: ${summary.join(", ")}`;
  return [
    `a restore to ${to} would change ${changes}${keep === 0 ? "" : `; ${plural(keep, "entry")} would stay`}`,
    ...limited(lines, most ?? PLAN_LIMIT, style),
    ...lacking,
    ...renderRefs(plan.refs, style),
    ...holders,
    ...(most === undefined ? [applyLine(plan.id, style)] : []),
  ].join("\n");
}

function entryLine({ action, path, kind, size: bytes, reason: why }: PlanEntry, style: Style): string {
  const colours = {
    create: style.green,
    update: style.yellow,
    delete: style.red,
    metadata: style.dim,
    keep: style.cyan,
  };
  const size = bytes === undefined || kind !== "file" ? "" : ` (${formatBytes(bytes)})`;
  const reason = why === undefined ? "" : `: ${why.replaceAll("_", " ")}`;
  const slash = kind === "directory" ? "/" : "";
  return `  ${colours[action](`${SIGNS[action]} ${shownPath(path)}${slash}`)}${size}${reason}`;
}

function nameOf({ path, path_b64: raw }: NamedPath): string {
  return raw ?? `/${path}`;
}
