import fs from "node:fs";
import { RecordFinder } from "../../archive/scan/find-record.ts";
import { hex, joinPath } from "../../formats/bytes.ts";
import type { Cause } from "../../formats/records/descriptor.ts";
import { publicLeftOut } from "../points/left-out.ts";
import { rootDifference, rootOfPoint } from "../points/root-changes.ts";
import { beforeRestore, type Point, rulesOf } from "../points/point-files.ts";
import { type RecordOptions, recordPoint, type Saved, type SaveInput } from "../save/record-point.ts";
import { isAsRecorded } from "../open/describe.ts";
import type { Workspace, WorkspaceCall } from "../open/workspace.ts";
import { AbsoluteRule, requirePaths } from "../rules/absolute.ts";
import { NOTHING_UNKNOWN, type Plan, planId, planRestore } from "../rules/plan.ts";
import { leftOutBefore } from "./apply.ts";
import { exists, unknownIn } from "./protected.ts";
import { advice, CairnError, option } from "../../errors.ts";
import { stalePlan } from "../../crypto/plan-id.ts";
import { plural } from "../../formats/sizes.ts";
import { listedNames, quotedPath } from "../../fs/paths/safe-path.ts";
import type { TextMerge } from "../rules/merge-text.ts";
import { Absolute, type Relative } from "../rules/wanted.ts";
import type { OperationKind } from "../points/operation-log.ts";

/** Prepares a restore before it changes the folder: the protected paths, the undo point. */

export interface RestoreInput extends WorkspaceCall {
  target: Point;
  /** names the target in a plan's id: the fork, snapshot or point of another workspace of which the target was made; default: the target's id */
  origin?: string | undefined;
  /** a target from this number on was made for this restore, and goes again if the caller does not want the plan */
  madeFrom?: number | undefined;
  /** the change of the folder; `target` is the state that it leads to */
  change: Absolute | Relative;
  /** the operation that is recorded */
  kind: OperationKind;
  /** an entry that would stay makes the restore fail with `refused` */
  strict?: boolean;
  /** the id of a plan: the restore fails with `stale_plan` if it would do anything else */
  plan?: string | undefined;
  /** writes databases that a process has open through SQLite; else such a database makes the restore fail */
  throughSqlite?: boolean | undefined;
  /** replaces files of other users, which then belong to this user; else such a file stays */
  takeOwnership?: boolean | undefined;
  allow?: SaveInput["allow"];
  cause?: Cause | undefined;
}

/** Saves the present as a point by the target's rules. Makes no point if nothing is to do and no plan to compare. */
export async function savePresent(workspace: Workspace, input: RestoreInput): Promise<Saved> {
  const rules = rulesOf(input.target);
  const { kind, plan } = input;
  const cause = plan === undefined ? input.cause : { kind, ...input.cause, plan };
  const said = beforeRestore(kind, input.target.descriptor.save_point_id, cause);
  const isNeeded = workspace.unfinished("missing-folder").isBegun || plan !== undefined;
  const unless: RecordOptions["unless"] = isNeeded ? undefined : (staged) => isAsRecorded(input.target, staged);
  const save = async (more: typeof rules): Promise<Saved> =>
    recordPoint(workspace, { ...input, ...said, crossMounts: rules.crossMounts }, { rules: more, undo: true, unless });
  const saved = await save(rules);
  if (saved.isSpared === true) return saved;
  if (saved.scan!.notes.ignoredCount === 0) return saved;
  const hidden = await workspace.engine.reading(async () => inTheWay(workspace, input, saved), input);
  if (hidden.length === 0) return saved;
  return save({ ...rules, excludes: [...rules.excludes, ...hidden] });
}

/**
 * Returns patterns that include hidden entries which the restore would replace, or whose directory it would replace.
 * The undo point must have these entries too.
 */
async function inTheWay(workspace: Workspace, input: RestoreInput, saved: Saved): Promise<string[]> {
  const states = { present: await workspace.source(saved.point), target: await workspace.source(input.target) };
  const { change } = input;
  const rule = new AbsoluteRule(new Absolute({ paths: change.paths, keepPresent: true }), states);
  const plan = await planRestore(rule, { scan: saved.scan!, ...NOTHING_UNKNOWN });
  const finder = new RecordFinder(saved.scan!);
  const patterns: string[] = [];
  for (const { action, path: where, before, after } of plan) {
    const isHidden = action === "create" && finder.find(where) === null && exists(workspace.root, where);
    if (isHidden) patterns.push(unignored(where));
    const isReplaced = isHidden || (before?.type === "dir" && change.replacesDirectories);
    if (!isReplaced || after?.type === "dir") continue;
    if (holdsUnrecorded(workspace.root, where, finder)) patterns.push(`${unignored(where)}/**`);
  }
  return patterns;
}

/** Returns a gitignore pattern that includes exactly one path again. */
function unignored(where: Uint8Array): string {
  return `!/${Buffer.from(where)
    .toString("utf8")
    .replaceAll(/[\\*?[\]!# ]/g, "\\$&")}`;
}

/** Tells if a directory of the folder has an entry, at any depth, that a scan did not record; else false. */
function holdsUnrecorded(root: Uint8Array, where: Uint8Array, finder: RecordFinder): boolean {
  const open: Buffer[] = [Buffer.from(where)];
  for (let at = open.pop(); at !== undefined; at = open.pop()) {
    for (const entry of entriesOf(joinPath(root, at))) {
      const own = joinPath(at, entry.name);
      if (finder.find(own) === null) return true;
      if (entry.isDirectory()) open.push(own);
    }
  }
  return false;
}

/** Lists a directory; an empty list for another kind of entry, or a directory that cannot be read. */
function entriesOf(place: Buffer): fs.Dirent<Buffer>[] {
  try {
    if (!fs.lstatSync(place).isDirectory()) return [];
    return fs.readdirSync(place, { withFileTypes: true, encoding: "buffer" });
  } catch {
    return [];
  }
}

/** Throws `not_found` for a path that neither the target nor the folder has. Runs before the present is saved. */
export async function requireAnywhere(
  workspace: Workspace,
  paths: readonly Uint8Array[],
  input: RestoreInput,
): Promise<void> {
  await workspace.engine.reading(async () => {
    const manifest = await workspace.manifest(input.target);
    requirePaths(paths, await workspace.source(input.target), unknownIn(workspace, manifest));
  }, input);
}

/** Returns the id of a restore's plan. Preview and restore agree on it. */
export function idOfPlan(
  { kind, target, origin, change }: Shown,
  { merged = [], root, ...planned }: PlannedFacts,
): string {
  const own = target && idOf(target);
  const nameOf = (point: Point): string => (origin !== undefined && idOf(point) === own ? origin : idOf(point));
  const texts = merged.map(({ path, sha256 }) => [hex(path), hex(sha256)]);
  const was = root?.after;
  const present = was ? [was.mode, was.uid, was.gid] : null;
  const options = [kind, origin ?? own, change.facts(nameOf), texts, present];
  return planId(options, planned);
}

/** The parts of a restore that a plan's id covers. `target` may be absent if `origin` names it. */
export type Shown = Pick<RestoreInput, "kind" | "origin" | "change"> & Partial<Pick<RestoreInput, "target">>;

/**
 * `merged`: the texts that the plan merged, with the digests of the results. `root`: the change of the folder itself,
 * whose `after` is the present; null if it stays.
 */
type PlannedFacts = Parameters<typeof planId>[1] & {
  merged?: TextMerge["merged"];
  root: ReturnType<typeof rootDifference>;
};

function idOf({ descriptor }: Point): string {
  return descriptor.save_point_id;
}

/** Tells why the caller does not want a planned restore: it is not the plan that was given, or entries would stay. */
export function whyUnwanted(
  input: RestoreInput,
  planned: Omit<PlannedFacts, "root"> & { undo: Point },
): CairnError | null {
  const root = input.change.isOfFolder ? rootDifference(rootOfPoint(input.target), rootOfPoint(planned.undo)) : null;
  const { plan } = input;
  const stale = plan === undefined ? null : whyStale(plan, idOfPlan(input, { ...planned, root }), planned.plan);
  return stale ?? whyNotAll(input, planned);
}

/** Returns an error if the plan that the caller was shown is not the plan `id`. Nothing was changed yet. */
export function whyStale(shown: string, id: string, plan: Plan): CairnError | null {
  if (id === shown) return null;
  const entries = Iterator.from(plan)
    .filter(({ before, after, aspects }) => !before || !after || aspects.some((aspect) => aspect !== "times"))
    .toArray();
  return stalePlan(shown, id, `it would change or keep ${plural(entries.length, "entry")} now${changedLast(entries)}`);
}

const SHOWN_NEWEST = 10;

/** Names the entries of a plan that changed last, as the end of a sentence. */
export function changedLast(entries: readonly Entry[]): string {
  const newest = entries.toSorted((a, b) => changedAt(b) - changedAt(a)).slice(0, SHOWN_NEWEST);
  if (newest.length === 0) return "";
  return `, and these changed last: ${listedNames(newest.map(({ path }) => quotedPath(path)))}`;
}

type Entry = Pick<Plan extends Iterable<infer E> ? E : never, "path" | "old">;

/** Returns the time of an entry's last change in seconds; 0 for an entry that is not there. */
function changedAt({ old }: Entry): number {
  return old === null ? 0 : old.ctimeSec + old.ctimeNs / 1e9;
}

function whyNotAll({ strict }: RestoreInput, { plan, scan }: Parameters<typeof planId>[1]): CairnError | null {
  if (strict !== true) return null;
  const stays = leftOutBefore(plan, scan, { paths: [], lacking: [], notSet: [] });
  if (stays.length === 0) return null;
  const names = listedNames(stays.map(({ path, reason }) => `${quotedPath(path)} (${reason.replaceAll("_", " ")})`));
  return new CairnError("refused", `${plural(stays.length, "entry")} cannot go back: ${names}; nothing was changed`, {
    hint: advice`without ${option("strict")} the others go back`,
    details: { stays: stays.map(publicLeftOut) },
  });
}
