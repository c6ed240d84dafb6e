import fs from "node:fs";
import { RecordFinder } from "../../archive/scan/find-record.ts";
import { latin1 } from "../../formats/bytes.ts";
import type { Cause } from "../../formats/records/descriptor.ts";
import type { Manifest } from "../../formats/records/manifest.ts";
import { filesystemKind, mountsInside } from "../../fs/linux/mounts.ts";
import { type LeftOutEntry, noteDamaged, savedWithout } from "../points/left-out.ts";
import { beforeRestore, type Point, rulesOf } from "../points/point-files.ts";
import { type RecordOptions, recordPoint, type Saved, type SaveInput } from "../save/record-point.ts";
import type { Workspace, WorkspaceCall } from "../open/workspace.ts";
import { FOLDER_JOURNAL, isIntentPending } from "../points/journals.ts";
import { groupOf, linksOf, type PlanInput, type Plan, planRestore, requirePaths, type RestoreLinks } from "./plan.ts";
import { isReverting, type OperationKind, type Reverted, operationParts } from "./reverting.ts";
import { presentAndPrevious } from "../../archive/scan/present-source.ts";
import type { TreeSource } from "../../repository/trees/tree-source.ts";
import type { Difference } from "../points/tree-diff.ts";
import { isFolderThere } from "../place/control-directory.ts";
import { neverPart } from "../place/registry.ts";

/** Comes before a restore changes anything: what it may not touch, the present as the undo point, the plan, the intent. */

const SLASH = Buffer.from("/");

export { isReverting } from "./reverting.ts";
export type { Saved } from "../save/record-point.ts";

export interface RestoreInput extends WorkspaceCall {
  target: Point;
  paths: readonly Uint8Array[] | null;
  keepPresent: boolean;
  /** throws `damaged`, for who can bring what is damaged; else it is left out */
  isWhole?: boolean;
  /** the paths are known to be in the target or the folder */
  pathsAreThere?: boolean;
  kind: OperationKind;
  /** an undo or redo: the operation whose changes are reverted */
  reverts?: Reverted;
  /** databases that a process has open get their content through SQLite; else they keep the restore from beginning */
  throughSqlite?: boolean | undefined;
  allow?: SaveInput["allow"];
  cause?: Cause | undefined;
}

/** True if paths that are in neither the target nor the folder are no mistake. */
export function mayLackPaths({ kind, pathsAreThere }: RestoreInput): boolean {
  return isReverting(kind) || pathsAreThere === true;
}

/** Returns the rules for the paths that a restore is limited to, for its plan. */
export function pathRules(input: RestoreInput): Pick<PlanInput, "mayLackPaths" | "takesBack"> {
  return { mayLackPaths: mayLackPaths(input), takesBack: isReverting(input.kind) };
}

/** The present as a point, by the target's rules, never by the present ones; none where `unless` says that nothing is to be done. */
export async function savePresent(
  workspace: Workspace,
  input: RestoreInput,
  unless?: RecordOptions["unless"],
): Promise<Saved> {
  const rules = rulesOf(input.target);
  const said = beforeRestore(input.kind, input.target.descriptor.save_point_id, input.cause);
  const isMade = isIntentPending(workspace.found.paths.journal, FOLDER_JOURNAL);
  const save = async (more: typeof rules): Promise<Saved> =>
    recordPoint(
      workspace,
      { ...input, ...said, crossMounts: rules.crossMounts },
      { rules: more, undo: true, ...(isMade ? {} : { unless }) },
    );
  const saved = await save(rules);
  if (saved.isSpared === true) return saved;
  if (saved.scan!.notes.ignoredCount === 0) return saved;
  const hidden = await workspace.engine.reading(async () => inTheWay(workspace, input, saved), input);
  if (hidden.length === 0) return saved;
  return save({ ...rules, excludes: [...rules.excludes, ...hidden] });
}

/**
 * Patterns that take back in what the rules hide and what stands where the target has something, or lies in a directory in
 * whose place the target has something else: that must be in the undo point too.
 */
async function inTheWay(workspace: Workspace, input: RestoreInput, saved: Saved): Promise<string[]> {
  const plan = await planRestore({
    present: await workspace.source(saved.point),
    scan: saved.scan!,
    target: await workspace.source(input.target),
    paths: input.paths,
    keepPresent: true,
    mayLackPaths: true,
  });
  const finder = new RecordFinder(saved.scan!);
  const patterns: string[] = [];
  for (const { action, path: where, before, after } of plan) {
    const isHidden = action === "create" && finder.find(where) === null && exists(workspace.root, where);
    if (isHidden) patterns.push(unignored(where));
    const isReplaced = isHidden || (before?.type === "dir" && !input.keepPresent);
    if (!isReplaced || after?.type === "dir") continue;
    if (holdsUnrecorded(workspace.root, where, finder)) patterns.push(`${unignored(where)}/**`);
  }
  return patterns;
}

function exists(root: Uint8Array, where: Uint8Array): boolean {
  try {
    fs.lstatSync(Buffer.concat([root, SLASH, where]));
    return true;
  } catch {
    return false;
  }
}

/** A gitignore pattern that takes exactly one path back in. */
function unignored(where: Uint8Array): string {
  return `!/${Buffer.from(where)
    .toString("utf8")
    .replaceAll(/[\\*?[\]!# ]/g, "\\$&")}`;
}

/**
 * Tells if a directory of the folder has something in it, at any depth, that a scan did not record; false for what is
 * no directory.
 */
function holdsUnrecorded(root: Uint8Array, where: Uint8Array, finder: RecordFinder): boolean {
  const open = [Buffer.from(where)];
  for (let at = open.pop(); at !== undefined; at = open.pop()) {
    for (const entry of entriesOf(Buffer.concat([root, SLASH, at]))) {
      const own = Buffer.concat([at, SLASH, entry.name]);
      if (finder.find(own) === null) return true;
      if (entry.isDirectory()) open.push(own);
    }
  }
  return false;
}

/** None of what is no directory, or cannot be looked into. */
function entriesOf(place: Buffer): fs.Dirent<Buffer>[] {
  try {
    if (!fs.lstatSync(place).isDirectory()) return [];
    return fs.readdirSync(place, { withFileTypes: true, encoding: "buffer" });
  } catch {
    return [];
  }
}

/** Tells which directories of a folder lie in another mount or subvolume inside it; undefined where there can be none. */
function placesInside(root: Buffer): ((directory: Uint8Array) => boolean) | undefined {
  if (!isFolderThere(root)) return undefined;
  const mounts = mountsInside(root).map(({ mountPoint }) => latin1(Buffer.from(mountPoint).subarray(root.length + 1)));
  if (mounts.length === 0 && filesystemKind(root).name !== "btrfs") return undefined;
  const device = fs.lstatSync(root).dev;
  const known = new Map([["", false], ...mounts.map((place) => [place, true] as const)]);
  const look = (directory: string): boolean => {
    let isInside = known.get(directory);
    if (isInside === undefined) {
      const above = directory.slice(0, Math.max(directory.lastIndexOf("/"), 0));
      isInside = look(above) || isOn(Buffer.concat([root, SLASH, Buffer.from(directory, "latin1")]), device) === false;
      known.set(directory, isInside);
    }
    return isInside;
  };
  return (directory) => look(latin1(directory));
}

/** Null for what is no directory, and for a path that is longer than the system takes. */
function isOn(place: Buffer, device: number): boolean | null {
  try {
    const facts = fs.lstatSync(place);
    return facts.isDirectory() ? facts.dev === device : null;
  } catch {
    return null;
  }
}

/** Lists what no restore of a point with this manifest takes away or puts in place. */
export function unknownIn(
  workspace: Workspace,
  manifest: Manifest | null,
): Pick<PlanInput, "omitted" | "partial" | "leftOutMounts" | "never" | "isThere" | "isInside"> {
  return {
    isThere: (where) => exists(workspace.root, where),
    isInside: placesInside(workspace.root),
    omitted: manifest?.omitted ?? [],
    partial: savedWithout(manifest?.labels ?? []),
    leftOutMounts: manifest?.mounts?.leftOut ?? [],
    never: neverPart(workspace.root, { crossMounts: true }).map((path) => Buffer.from(path, "latin1")),
  };
}

/** Throws `not_found` for a path that is neither in the target nor in the folder, before anything is saved. */
export async function requireAnywhere(
  workspace: Workspace,
  paths: readonly Uint8Array[],
  input: RestoreInput,
): Promise<void> {
  await workspace.engine.reading(async () => {
    const target = await workspace.source(input.target);
    requirePaths(paths, { target, ...unknownIn(workspace, await workspace.manifest(input.target)) });
  }, input);
}

/** A restore as it is planned, before anything is changed. */
export interface PlannedRestore {
  plan: Plan;
  links: RestoreLinks;
  target: TreeSource;
  manifest: Manifest | null;
  /** directories of the target that are damaged, of those that were asked for */
  damaged: LeftOutEntry[];
  /** of the folder */
  scan: PlanInput["scan"];
  /** the point that holds what the folder has */
  undo: Point;
}

/** Plans a restore of the target over what was just saved. */
export async function planOf(workspace: Workspace, input: RestoreInput, present: Saved): Promise<PlannedRestore> {
  const target = await workspace.source(input.target);
  input.onProgress?.({ phase: "planning", done: 0 });
  const source = await workspace.source(present.point);
  const manifest = await workspace.manifest(input.target);
  const lossless = (await workspace.manifest(present.point))?.lossless ?? [];
  const scan = present.scan!;
  // Where the present was scanned against the target they are compared without reading any tree.
  const pair = presentAndPrevious(scan);
  const isPair = pair !== null && Buffer.compare(pair.previous.root, target.root) === 0;
  const unasked: Difference[] = [];
  const damaged: LeftOutEntry[] = [];
  const plan = await planRestore({
    ...(isPair ? { present: pair.present, target: pair.previous } : { present: source, target }),
    scan,
    paths: input.paths,
    keepPresent: input.keepPresent,
    fields: { before: lossless, after: manifest?.lossless ?? [] },
    ...unknownIn(workspace, manifest),
    ...pathRules(input),
    ...(input.reverts === undefined
      ? {}
      : { reverts: await operationParts(workspace, input.reverts, { source, fields: lossless }) }),
    ...(input.isWhole === true ? {} : { onDamaged: noteDamaged(damaged, input.paths) }),
    onUnasked: (each) => void (groupOf(each.after) !== 0n && unasked.push(each)),
    signal: input.signal,
  });
  return {
    plan,
    links: linksOf({ plan, unasked, target, source, scan }),
    target,
    manifest,
    damaged,
    scan,
    undo: present.point,
  };
}
