import type { CleanupPlan, CleanupResult, DoctorResult, RunResult, VerifyResult } from "../../contract/index.ts";
import type { RemovePathsResult } from "../../verbs/schemas.ts";
import type { Shorten } from "../shorten.ts";
import { formatBytes, formatCounts, formatDuration, limited, plural, printable } from "./format.ts";
import type { Style } from "./style.ts";

export function renderVerify(result: VerifyResult, shorten: Shorten, style: Style): string {
  const { points, files, bytes } = result.checked;
  const checked = `${plural(points, "point")}, ${plural(files, "file")}, ${formatBytes(bytes)} read`;
  const unread = result.unverified.map(
    (each) =>
      `  ${style.yellow("not checked")} ${shorten(each.point)} (${printable(each.workspace_name)}): ${printable(each.detail)}\n      ${printable(each.hint)}`,
  );
  if (result.problems.length === 0) {
    if (unread.length === 0) return `${style.green("no damage found")}: ${checked}`;
    const head = `${style.yellow(`${plural(unread.length, "point")} could not be checked`)}, no damage found in the others: ${checked}`;
    return [head, ...limited(unread, 100, style)].join("\n");
  }
  const lines = result.problems.map((problem) => {
    const where = problem.point === null ? "store" : shorten(problem.point);
    const path = problem.path === undefined ? "" : ` ${printable(problem.path)}`;
    return `  ${style.red(problem.kind)} ${where}${path}: ${printable(problem.detail)}\n      ${printable(problem.hint)}`;
  });
  return [
    `${style.red(`damaged: ${plural(result.problems.length, "problem")}`)}; ${checked}`,
    ...limited([...lines, ...unread], 100, style),
  ].join("\n");
}

/**
 * Prints the findings, then the engine in use and why no better engine is used. `isFailing`: saves or scheduled work fail,
 * although no damage was found.
 */
export function renderDoctor(result: DoctorResult, style: Style, isFailing = false): string {
  const { engine_reasons: reasons } = result;
  const at = reasons.findIndex(({ chosen }) => chosen);
  const better = reasons.slice(0, at).map(({ engine, reason, hint }) => {
    const help = hint === undefined ? "" : `; ${printable(hint)}`;
    return `  ${style.dim(`not ${engine}: ${printable(reason)}${help}`)}`;
  });
  const used = `engine ${reasons[at]!.engine} (${printable(reasons[at]!.reason)})`;
  return [renderFindings(result, style, isFailing), used, ...better].join("\n");
}

function renderFindings(result: DoctorResult, style: Style, isFailing: boolean): string {
  if (result.findings.length === 0 && !isFailing) return style.green("healthy: no problem found");
  const colours = { info: style.dim, warning: style.yellow, damage: style.red };
  const lines = result.findings.flatMap((finding) => {
    const line = `${colours[finding.severity](finding.severity)} ${finding.kind}: ${printable(finding.detail)}`;
    if (finding.repair === undefined) return [line];
    const verb =
      finding.repaired === true ? "repaired" : finding.repaired === false ? "could not be repaired" : "--repair would";
    return [line, `  ${verb}: ${printable(finding.repair)}`];
  });
  const well = isFailing ? style.red("no damage found, but saves or scheduled work fail") : style.green("healthy");
  return [...lines, result.healthy ? well : style.red("not healthy")].join("\n");
}

export interface CleanupView {
  plan: CleanupPlan;
  shorten: Shorten;
  /** The line that applies the plan. */
  next: string;
  /** True: no rule was given, so no point can be removed. */
  ruleless?: boolean;
  style: Style;
}

export function renderCleanupPlan(view: CleanupView): string {
  const { plan, shorten, style } = view;
  // A long list is cut, so the points to remove come first.
  const lines = plan.reasons
    .toSorted((a, b) => Number(a.keep) - Number(b.keep))
    .map((reason) => {
      const word = reason.keep ? style.green("keep") : style.red("drop");
      return `  ${word} ${shorten(reason.save_point_id)}  ${style.dim(reason.reasons.map(printable).join(", "))}`;
    });
  const drop = plan.reclaimable_save_points.length;
  const head = `${plural(drop, "point")} to remove, about ${formatBytes(plan.reclaimable_bytes_estimate)} freed in the store; ${plural(plan.protected_save_points.length, "point")} to keep`;
  const isToDo = drop > 0 || plan.removals_pending;
  const next = isToDo ? [toApply(view.next, style)] : [];
  const pending = plan.removals_pending
    ? [`  ${style.yellow("not done yet")}: the store still holds content of points removed earlier`]
    : [];
  const help =
    view.ruleless === true
      ? ["  no rules are given or set, so every point is kept; for the rules see: cairn cleanup --help"]
      : [];
  return [head, ...limited(lines, 100, style), ...pending, ...help, ...next].join("\n");
}

const toApply = (line: string, style: Style): string => `to do exactly this, or nothing: ${style.cyan(line)}`;

export function renderCleanupResult(result: CleanupResult, style: Style): string {
  if (result.removed.length === 0 && result.bytes_freed === 0 && result.complete) return "nothing to remove";
  const done = `${style.green("removed")} ${plural(result.removed.length, "point")}, ${formatBytes(result.bytes_freed)} freed in the store`;
  return result.complete
    ? done
    : `${done}; ${style.yellow("not done yet")}: some content of the removed points is still there`;
}

export interface RemovedPathsView {
  result: RemovePathsResult;
  shorten: Shorten;
  /** The line that applies the plan of a dry run. */
  next: string;
  style: Style;
}

export function renderRemovedPaths({ result, shorten, next, style }: RemovedPathsView): string {
  const { points, point_count: count, event_count: events, cause_count: causes } = result;
  const places = [events > 0 && plural(events, "event"), causes > 0 && `the records of ${plural(causes, "point")}`];
  const typed = places.filter((place) => place !== false).join(" and ");
  const told =
    typed === "" ? [] : [`${result.dry_run ? "would remove" : style.green("removed")} typed text from ${typed}`];
  if (count === 0 && typed === "")
    return "no point has such a path, and no event, cause, message or tag has such a text; `cairn find NAME` also searches for a part of a name";
  if (count === 0) return [...told, ...(result.dry_run ? [toApply(next, style)] : [])].join("\n");
  const lines = points.map((point) => {
    const facts = [point.undo && "undo point", point.pinned && "pinned"].filter((fact) => fact !== false);
    const paths = point.paths.slice(0, 5).map(({ path }) => printable(path));
    const more = point.path_count > paths.length ? ` and ${point.path_count - paths.length} more` : "";
    const said = facts.length === 0 ? "" : style.dim(` (${facts.join(", ")})`);
    return `  ${style.bold(shorten(point.save_point_id))} ${printable(point.workspace_name)}${said}  ${paths.join(", ")}${more}`;
  });
  const list = limited(
    count > points.length ? [...lines, `  and ${count - points.length} more points`] : lines,
    100,
    style,
  );
  if (result.dry_run)
    return [...told, `${plural(count, "point")} with such a path:`, ...list, toApply(next, style)].join("\n");
  const done = `${style.green("removed")} from ${plural(count, "point")}, ${formatBytes(result.bytes_freed)} freed in the store`;
  const head = result.complete ? done : `${done}; ${style.yellow("not done yet")}: some of the content is still there`;
  return [...told, head, ...list].join("\n");
}

/** The line after a command of `run`. */
export function renderRun(result: RunResult, shorten: Shorten, style: Style): string {
  const ended = result.signal === null ? `exit ${result.exit_code}` : printable(result.signal);
  const colour = result.exit_code === 0 ? style.green : style.red;
  const line = `${colour(ended)} after ${formatDuration(result.duration_ms)}`;
  const before = style.bold(shorten(result.before.save_point_id));
  if (result.after === null) return `${line}; before: ${before}; ${style.red("the state after it was not saved")}`;
  const counts = result.changes === null ? "" : formatCounts(result.changes);
  const changed = counts === "nothing" ? " (nothing changed)" : counts === "" ? "" : ` (${counts})`;
  return `${line}; before: ${before}, after: ${style.bold(shorten(result.after.save_point_id))}${changed}`;
}
