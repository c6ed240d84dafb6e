import fs from "node:fs";
import { RecordFinder } from "../../archive/scan/find-record.ts";
import { latin1 } from "../../formats/bytes.ts";
import type { Cause } from "../../formats/records/descriptor.ts";
import type { Manifest } from "../../formats/records/manifest.ts";
import { filesystemKind, mountsInside } from "../../fs/linux/mounts.ts";
import { lackingIn, type LeftOutEntry, noteDamaged, savedWithout } from "../points/left-out.ts";
import { beforeRestore, type Point, rulesOf } from "../points/point-files.ts";
import { type RecordOptions, recordPoint, type Saved, type SaveInput } from "../save/record-point.ts";
import type { Workspace, WorkspaceCall } from "../open/workspace.ts";
import { leftOutBefore } from "./apply.ts";
import { expectedToStay } from "./other-owners.ts";
import { AbsoluteRule, requirePaths, requireSeen } from "./absolute.ts";
import { append } from "../../append.ts";
import { TextMerge } from "./merge-text.ts";
import { groupOf, linksOf, otherNames, putGroups, type RestoreLinks } from "./links.ts";
import { type Plan, planRestore, type Protected } from "./plan.ts";
import { type Relative, relativeRule } from "./relative.ts";
import type { OperationKind } from "../points/operation-log.ts";
import { presentAndPrevious } from "../../archive/scan/present-source.ts";
import type { TreeSource } from "../../repository/trees/tree-source.ts";
import { type Difference, exactDifferences } from "../points/tree-diff.ts";
import { isFolderThere } from "../place/control-directory.ts";
import { neverPart } from "../place/registry.ts";

/** Prepares a restore before it changes the folder: the protected paths, the undo point, the plan, the intent. */

const SLASH = Buffer.from("/");

export interface RestoreInput extends WorkspaceCall {
  target: Point;
  paths: readonly Uint8Array[] | null;
  keepPresent: boolean;
  /** a damaged directory or file throws `damaged`, so that the caller can repair it; else it is left out */
  isWhole?: boolean;
  /** the paths are known to be in the target or the folder */
  pathsAreThere?: boolean;
  kind: OperationKind;
  /** takes only these changes back; absent: the folder becomes equal to the target */
  relative?: Relative;
  /** an entry that would stay makes the restore fail with `refused` */
  strict?: boolean;
  /** writes databases that a process has open through SQLite; else such a database makes the restore fail */
  throughSqlite?: boolean | undefined;
  /** replaces files of other users, which then belong to this user; else such a file stays */
  takeOwnership?: boolean | undefined;
  allow?: SaveInput["allow"];
  cause?: Cause | undefined;
}

/** Saves the present as a point by the target's rules. Makes no point if `unless` finds nothing to do. */
export async function savePresent(
  workspace: Workspace,
  input: RestoreInput,
  unless?: RecordOptions["unless"],
): Promise<Saved> {
  const rules = rulesOf(input.target);
  const said = beforeRestore(input.kind, input.target.descriptor.save_point_id, input.cause);
  const isMade = workspace.unfinished("missing-folder").isBegun;
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
 * Returns patterns that include hidden entries which the restore would replace, or whose directory it would replace.
 * The undo point must have these entries too.
 */
async function inTheWay(workspace: Workspace, input: RestoreInput, saved: Saved): Promise<string[]> {
  const states = { present: await workspace.source(saved.point), target: await workspace.source(input.target) };
  const rule = new AbsoluteRule({ ...states, paths: input.paths, keepPresent: true });
  const plan = await planRestore(rule, { scan: saved.scan! });
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

/** Returns a gitignore pattern that includes exactly one path again. */
function unignored(where: Uint8Array): string {
  return `!/${Buffer.from(where)
    .toString("utf8")
    .replaceAll(/[\\*?[\]!# ]/g, "\\$&")}`;
}

/** Tells if a directory of the folder has an entry, at any depth, that a scan did not record; else false. */
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

/** Lists a directory; an empty list for another kind of entry, or a directory that cannot be read. */
function entriesOf(place: Buffer): fs.Dirent<Buffer>[] {
  try {
    if (!fs.lstatSync(place).isDirectory()) return [];
    return fs.readdirSync(place, { withFileTypes: true, encoding: "buffer" });
  } catch {
    return [];
  }
}

/**
 * Returns a function that tells if a directory lies in another mount or subvolume inside the folder; undefined if the
 * folder can have none.
 */
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

/** Tells if a directory is on a device. Null for any other entry, and for a path that is too long for the system. */
function isOn(place: Buffer, device: number): boolean | null {
  try {
    const facts = fs.lstatSync(place);
    return facts.isDirectory() ? facts.dev === device : null;
  } catch {
    return null;
  }
}

/** Returns the entries that no restore of a point with this manifest removes or puts in place. */
export function unknownIn(workspace: Workspace, manifest: Manifest | null): Omit<Protected, "scan"> {
  return {
    isThere: (where) => exists(workspace.root, where),
    isInside: placesInside(workspace.root),
    omitted: manifest?.omitted ?? [],
    partial: savedWithout(manifest?.labels ?? []),
    leftOutMounts: manifest?.mounts?.leftOut ?? [],
    never: neverPart(workspace.root, { crossMounts: true }).map((path) => Buffer.from(path, "latin1")),
  };
}

/** Returns the facts of every state that a relative change may go back to. */
async function unknownOfAll(workspace: Workspace, { changes }: Relative): Promise<Partial<Protected>> {
  const all: ReturnType<typeof unknownIn>[] = [];
  for (const { found } of changes) all.push(unknownIn(workspace, await workspace.manifest(found)));
  return {
    omitted: all.flatMap(({ omitted }) => omitted ?? []),
    partial: all.flatMap(({ partial }) => partial ?? []),
    leftOutMounts: all.flatMap(({ leftOutMounts }) => leftOutMounts ?? []),
  };
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

/** The plan of a restore, before the folder is changed. */
export interface PlannedRestore {
  plan: Plan;
  links: RestoreLinks;
  target: TreeSource;
  manifest: Manifest | null;
  /** damaged directories of the target, among the selected paths */
  damaged: LeftOutEntry[];
  /** scan of the folder */
  scan: Protected["scan"];
  /** the entries of a relative change that does not lead to the target itself, since others' changes stay; null: all */
  own: Uint8Array[] | null;
  /** texts that the plan merged; null: none */
  texts: TextMerge | null;
  /** the point that holds the present folder */
  undo: Point;
}

/** More paths are not worth a record: an undo then compares the whole folder. */
const MOST_OWN = 10_000;

/** Returns the changed paths of a plan if the folder will differ from the target otherwise than in times, else null. */
function ownPaths(plan: Plan, toTarget: Iterable<Difference>): Uint8Array[] | null {
  if (plan.length > MOST_OWN) return null;
  const changed = new Set<string>();
  for (const { path, action, edited } of plan) if (action !== "keep" && edited === undefined) changed.add(latin1(path));
  for (const { path, aspects, before, after } of toTarget) {
    const isMoved = before !== null && after !== null && aspects.every((aspect) => aspect === "times");
    if (!isMoved && !changed.has(latin1(path)))
      return Iterator.from(plan)
        .filter(({ action }) => action !== "keep")
        .map((each) => each.path)
        .toArray();
  }
  return null;
}

/** Plans a restore of the target over the present that was just saved. */
export async function planOf(workspace: Workspace, input: RestoreInput, present: Saved): Promise<PlannedRestore> {
  const target = await workspace.source(input.target);
  input.onProgress?.({ phase: "planning", done: 0 });
  const source = await workspace.source(present.point);
  const manifest = await workspace.manifest(input.target);
  const lossless = (await workspace.manifest(present.point))?.lossless ?? [];
  const scan = present.scan!;
  // If the present was scanned against the target, the two are compared without reading a tree.
  const pair = presentAndPrevious(scan);
  const isPair = pair !== null && Buffer.compare(pair.previous.root, target.root) === 0;
  const unasked: Difference[] = [];
  const damaged: LeftOutEntry[] = [];
  const facts = { scan, ...unknownIn(workspace, manifest) };
  const { relative, paths, keepPresent, pathsAreThere = false, signal } = input;
  let plan: Plan;
  let texts: TextMerge | null = null;
  let own: PlannedRestore["own"] = null;
  if (relative === undefined) {
    const states = isPair ? { present: pair.present, target: pair.previous } : { present: source, target };
    const wanted = {
      ...states,
      paths,
      keepPresent,
      fields: { before: lossless, after: manifest?.lossless ?? [] },
      ...(input.isWhole === true ? {} : { onDamaged: noteDamaged(damaged, paths) }),
      onUnasked: (each: Difference) => void (groupOf(each.after) !== 0n && unasked.push(each)),
    };
    const rule = new AbsoluteRule(wanted);
    plan = await planRestore(rule, facts, signal);
    if (!pathsAreThere) requireSeen(rule, wanted, facts);
  } else {
    const present = { source, fields: lossless };
    texts = relative.merges === true ? new TextMerge(target) : null;
    const onDamaged = noteDamaged(damaged, relative.paths);
    const rule = await relativeRule(workspace, relative, { present, onDamaged, texts });
    plan = await planRestore(rule, { ...facts, ...(await unknownOfAll(workspace, relative)) }, signal);
    if (putGroups(plan).size > 0) append(unasked, otherNames(plan, rule.besides()));
    own = ownPaths(
      plan,
      exactDifferences(source, target, { before: lossless, after: manifest?.lossless ?? [] }, () => undefined),
    );
  }
  return {
    plan,
    links: linksOf({ plan, unasked, target, source, scan }),
    target: texts === null ? target : texts.with(target),
    texts,
    own,
    manifest,
    damaged,
    scan,
    undo: present.point,
  };
}

/** Lists the entries that a planned restore will leave out, as far as it is known before entries are staged. */
export function expectedLeftOut(
  plan: Plan,
  more: Pick<PlannedRestore, "scan" | "manifest" | "damaged"> & Pick<RestoreInput, "paths" | "takeOwnership">,
): LeftOutEntry[] {
  const { scan, manifest, damaged, paths, takeOwnership } = more;
  const stays = takeOwnership === true ? [] : expectedToStay(plan);
  return leftOutBefore(plan, scan, {
    paths,
    lacking: [...lackingIn(manifest, paths), ...damaged, ...stays],
    notSet: [],
  });
}
