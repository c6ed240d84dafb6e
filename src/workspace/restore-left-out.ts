import type { NotSet } from "../engines/write/node-writer.ts";
import type { ScanResult } from "../engines/scan/scan.ts";
import { PathSelection } from "../fs/path-selection.ts";
import { type LeftOutEntry, leftOutOf } from "./record-point.ts";
import type { AppliedSteps } from "./restore-apply.ts";
import type { PlannedEntry } from "./restore-plan.ts";

/** What a restore leaves otherwise than its point has it, with the reasons. */

/**
 * As far as it is known before the first step: what the plan keeps, what of the present (`scan`) could not be saved, what the point
 * lacks (`lacking`), and what staging could not make or set (`notSet`). Of the paths that were asked for; null: of all.
 */
export function leftOutBefore(
  plan: readonly PlannedEntry[],
  scan: ScanResult,
  more: { paths: readonly Uint8Array[] | null; lacking: readonly LeftOutEntry[]; notSet: readonly NotSet[] },
): LeftOutEntry[] {
  const kept = plan
    .filter(({ action }) => action === "keep")
    .map(({ path, reason, detail, before, after, aspects }) => ({
      path,
      reason: reason ?? ("not_saved" as const),
      detail: detail ?? "",
      ...(reason === "unreadable" && before?.type === "dir" && after?.type === "dir" ? { aspects } : {}),
    }));
  const listed = pathsOf(kept);
  const asked = new PathSelection(more.paths ?? [""]);
  const untouched = leftOutOf(scan).filter(
    ({ path, reason }) => reason !== "changing" && asked.chosenAt(path) !== null && !listed.has(keyOf(path)),
  );
  // What stays there instead says why.
  const named = pathsOf([...kept, ...untouched]);
  const said = new PathSelection([...kept, ...untouched].filter(isNotThere).map(({ path }) => path));
  const lost = more.lacking.filter(({ path }) => said.of(path) === "no" && !named.has(keyOf(path)));
  return [...kept, ...untouched, ...lost, ...more.notSet.map(notSetEntry)];
}

/** With what the steps and the end left: `atLast` is of the folder itself, and of the places apart. */
export function leftOutAfter(
  before: readonly LeftOutEntry[],
  applied: AppliedSteps,
  atLast: readonly NotSet[],
): LeftOutEntry[] {
  // What was not put in place has nothing that could be set on it.
  const stayed = pathsOf(applied.kept);
  const known = before.filter(({ path, aspects }) => aspects === undefined || !stayed.has(keyOf(path)));
  // A place apart that a step set already.
  const set = pathsOf(applied.notSet);
  const last = atLast.filter(({ path }) => !set.has(keyOf(path)));
  return [...known, ...applied.kept, ...[...last, ...applied.notSet].map(notSetEntry)];
}

/** Of something that was left out: whether it is not in its place at all, rather than there with another owner or such. */
export function isNotThere({ aspects }: LeftOutEntry): boolean {
  return aspects === undefined || aspects.includes("type");
}

export function notSetEntry({ path, aspects, detail }: NotSet): LeftOutEntry {
  return { path, reason: "not_permitted", detail, aspects };
}

function pathsOf(entries: readonly { path: Uint8Array }[]): Set<string> {
  return new Set(entries.map(({ path }) => keyOf(path)));
}

function keyOf(path: Uint8Array): string {
  return Buffer.from(path).toString("latin1");
}
