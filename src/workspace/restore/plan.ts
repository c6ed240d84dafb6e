import type { TreeSource } from "../../repository/trees/tree-source.ts";
import { FLAG } from "../../archive/cache/scan-table.ts";
import { type Identity, identityOf, RecordFinder } from "../../archive/scan/find-record.ts";
import type { ScanResult } from "../../archive/scan/scan.ts";
import { advice, CairnError, call, word } from "../../errors.ts";
import { latin1 } from "../../formats/bytes.ts";
import { TAKEN_OUT } from "../../formats/records/manifest.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { besideWhich } from "../../formats/sqlite-header.ts";
import { PathSelection } from "../../fs/path-selection.ts";
import { isAtOrBelow, quotedPath } from "../../fs/paths/safe-path.ts";
import { newPacer } from "../../pacer.ts";
import type { LeftOutEntry } from "../points/left-out.ts";
import type { OperationParts, Part } from "./reverted.ts";
import { inOrder, type Listed, PackedList } from "../points/packed-list.ts";
import {
  type Difference,
  differences,
  exactDifferences,
  type ExactFields,
  findNode,
  NodeFinder,
  type OnDamagedDirectory,
  withoutMovedTimes,
} from "../points/tree-diff.ts";

export { findNode } from "../points/tree-diff.ts";

/** One entry, and the change that a restore makes to it. */
export interface PlannedEntry extends Difference {
  action: "create" | "update" | "delete" | "metadata" | "keep";
  /** the saved lstat of the present entry; null if the path is empty */
  old: Identity | null;
  reason?: LeftOutEntry["reason"];
  detail?: string;
}

/** The entries that a restore changes or keeps, in raw pre-order. */
export type Plan = Listed<PlannedEntry>;

export interface PlanInput {
  /** the folder as it was just saved (or only looked at) */
  present: TreeSource;
  scan: ScanResult;
  target: TreeSource;
  /** raw paths below the root; null: everything */
  paths: readonly Uint8Array[] | null;
  /** entries that the target does not have stay */
  keepPresent: boolean;
  /** fields that the manifests add to the trees; absent: none */
  fields?: ExactFields;
  /** entries that the target's save could not read: a present entry at such a path stays */
  omitted?: readonly { path: Uint8Array; reason: string }[];
  /** entries of which the target's save could not read all attributes: the present attributes stay */
  partial?: readonly { path: Uint8Array }[];
  /** mounts that the target's save left out: the target knows nothing of the entries below them */
  leftOutMounts?: readonly Uint8Array[];
  /** parts of control directories, which no restore changes */
  never?: readonly Uint8Array[];
  /** tells if a directory lies in another mount or subvolume inside the folder: such entries are kept; absent: none does */
  isInside?: ((directory: Uint8Array) => boolean) | undefined;
  /** tells if the folder has an entry that the scan may leave out; absent: the scan is complete */
  isThere?: (path: Uint8Array) => boolean;
  /** paths that neither state has are no error: they were checked before, or an undo found both sides without them */
  mayLackPaths?: boolean;
  /** an undo of a restore of the paths: directories that the restore made above them are removed too */
  takesBack?: boolean;
  /** an undo or redo: only entries that the operation changed are planned, and entries edited since are kept */
  reverts?: OperationParts;
  /** called for a directory damaged in either state; all of it stays. Absent: the plan throws `damaged` */
  onDamaged?: OnDamagedDirectory;
  /** called for each difference that the plan leaves out */
  onUnasked?: (difference: Difference) => void;
  signal?: AbortSignal | undefined;
}

/**
 * Compares the present with the target and returns the changes, in raw pre-order. Changes no file. Entries that the
 * undo point does not hold completely are kept.
 */
export async function planRestore(input: PlanInput): Promise<Plan> {
  const pace = newPacer(input.signal);
  const finder = new RecordFinder(input.scan);
  const mounts = new PathSelection(input.scan.notes.mounts);
  const entries = new PackedList<PlannedEntry>();
  const selection = input.paths === null ? null : new Selection(input.paths, input);
  const unknown = new PathSelection((input.omitted ?? []).map(({ path }) => path));
  const takenOut = new PathSelection(
    (input.omitted ?? []).flatMap(({ path, reason }) => (reason === TAKEN_OUT ? [path] : [])),
  );
  const partial = new Set((input.partial ?? []).map(({ path }) => latin1(path)));
  const unseen = new PathSelection(input.leftOutMounts ?? []);
  const never = new PathSelection(input.never ?? []);
  const reverting = input.reverts === undefined ? null : new Reverting(input.reverts);
  const inside: Uint8Array[] = [];
  const planEntry = (difference: Difference): PlannedEntry => {
    if (never.chosenAt(difference.path) !== null) return kept(difference, "not_saved", OF_CONTROL);
    if (difference.after === null && unseen.chosenAt(difference.path) !== null)
      return kept(difference, "mounted", MOUNTED_THEN);
    if (mounts.chosenAt(difference.path) !== null) return kept(difference, "mounted", MOUNTED_NOW);
    if (input.isInside?.(directoryOf(difference)) === true) {
      if (difference.before !== null) inside.push(difference.path);
      return kept(difference, "mounted", IN_ANOTHER);
    }
    if (difference.after === null && takenOut.chosenAt(difference.path) !== null)
      return kept(difference, "taken_out", TAKEN_OUT);
    if (difference.after === null && unknown.chosenAt(difference.path) !== null)
      return kept(difference, "unreadable", UNKNOWN_IN_TARGET);
    const known = partial.has(latin1(difference.path)) ? withPresentAttributes(difference) : difference;
    if (known === null) return kept(difference, "unreadable", PARTIAL_IN_TARGET);
    return (input.keepPresent ? keptPresent(input, known) : null) ?? plan(known, finder);
  };
  let closed: Uint8Array | null = null;
  const { present, target, fields = { before: [], after: [] }, onDamaged } = input;
  for (const difference of exactDifferences(present, target, fields, onDamaged)) {
    await pace();
    if (selection?.isWanted(difference) === false) {
      input.onUnasked?.(difference);
      continue;
    }
    if (difference.after === null && input.keepPresent) continue;
    const part = reverting?.partOf(difference);
    if (part === "untouched") {
      input.onUnasked?.(difference);
      continue;
    }
    if (part === "edited") {
      entries.push(kept(difference, "changed_since", EDITED));
      continue;
    }
    for (const missing of reverting?.directoriesFor(difference.path) ?? []) entries.push(planEntry(missing));
    closed = unreadableAt(difference, finder) ?? closed;
    // A directory that cannot be read stays with all its entries; the directory itself is named.
    if (closed !== null && difference.path.length > closed.length && isAtOrBelow(difference.path, closed)) continue;
    entries.push(planEntry(difference));
  }
  if (selection !== null && input.mayLackPaths !== true)
    for (const path of selection.unseen())
      if (
        unknown.chosenAt(path) === null &&
        [input.present, input.target].every((side) => findNode(side, path) === null)
      )
        throw lacksPath(path, whyLeftOut(input, path, { never, unseen, mounts }));
  // Nodes of a scan are parts of its tables, which a restore frees before it ends.
  entries.own();
  const staying = [...inside, ...(reverting?.staying ?? [])];
  if (staying.length === 0) return entries;
  // A directory stays if entries of another mount, or newer entries, are in it.
  const held = new PathSelection(staying);
  const reason = inside.length > 0 ? "mounted" : "changed_since";
  const all = new PackedList<PlannedEntry>();
  for (const entry of entries) {
    const goes = entry.before?.type === "dir" && entry.after?.type !== "dir" && entry.action !== "keep";
    all.push(goes && held.leadsOn(entry.path) ? kept(entry, reason, HOLDS_WHAT_STAYS) : entry);
  }
  return all;
}

/** Follows a plan in raw pre-order and tells which entries an undo or redo leaves alone. */
class Reverting {
  readonly #parts: OperationParts;
  /** Directories removed since the operation. Each is made again only if an entry below it comes back. */
  #missing: Difference[] = [];
  /** A directory removed or replaced since the operation: no entry below its path comes back. */
  #closed: Uint8Array | null = null;
  /** Entries that stay; the directories above them stay too. */
  readonly staying: Uint8Array[] = [];

  constructor(parts: OperationParts) {
    this.#parts = parts;
  }

  partOf(difference: Difference): Part {
    const { path, before, after } = difference;
    this.#missing = this.#missing.filter((each) => isAtOrBelow(path, each.path));
    const isClosed = this.#closed !== null && isAtOrBelow(path, this.#closed);
    const own = this.#parts.of(difference);
    const part = isClosed && own === "changed" ? "edited" : own;
    if (part === "changed") return part;
    if (before !== null && after === null) this.staying.push(path);
    if (after?.type !== "dir" || before?.type === "dir" || isClosed) return part;
    if (part === "untouched" && before === null) this.#missing.push(difference);
    else this.#closed = path;
    return part;
  }

  /** Returns the missing directories above `path`, outermost first, each once. */
  directoriesFor(path: Uint8Array): Difference[] {
    return this.#missing.splice(0).filter((each) => isAtOrBelow(path, each.path));
  }
}

/** Returns the entry's own path if it is a directory, else its parent's path. */
function directoryOf({ path, before }: Difference): Uint8Array {
  return before?.type === "dir" ? path : path.subarray(0, Math.max(path.lastIndexOf(0x2f), 0));
}

/** Reasons to keep an entry. Removing an entry that the target's save could not read would lose it. */
const UNKNOWN_IN_TARGET = "it was unreadable when it was saved, so the save point does not have its content";
const PARTIAL_IN_TARGET = "the save point lacks some of its extended attributes, so the present ones stay";
const UNREAD_NOW = "its extended attributes cannot be read, so the undo point would not have all of it";
const EDITED = "it was changed after the operation that is reverted, and stays as it is";
const MOUNTED_THEN = "a file system was mounted there at the save, and was left out";
const MOUNTED_NOW = "another file system is mounted there";
export const HOLDS_WHAT_STAYS = "some of its entries stay";
export const IN_ANOTHER =
  "it is in a nested subvolume or another file system, which a restore in place does not change: restore it with --to";
const OF_CONTROL = "it is among Cairn's own files, which no restore changes";

function kept(difference: Difference, reason: NonNullable<PlannedEntry["reason"]>, detail: string): PlannedEntry {
  return { ...difference, old: null, action: "keep", reason, detail };
}

/** Adds attributes that only the present entry has to the target's entry. Returns null if no difference is left. */
function withPresentAttributes(difference: Difference): Difference | null {
  const { before, after } = difference;
  if (before === null || after === null || before.type !== after.type) return difference;
  const others = before.xattrs.filter(({ name }) =>
    after.xattrs.every((each) => Buffer.compare(each.name, name) !== 0),
  );
  const xattrs = [...after.xattrs, ...others].toSorted((a, b) => Buffer.compare(a.name, b.name));
  const merged = { ...after, xattrs };
  const aspects = differences(before, merged);
  return aspects.length === 0 ? null : { ...difference, after: merged, aspects };
}

/** Returns the path of the entry or of its parent if the present save could not read it; else null. */
function unreadableAt({ path, before, after }: Difference, finder: RecordFinder): Uint8Array | null {
  // A directory that should go, but was not read completely, stays with its entries.
  if (before?.type === "dir" && after?.type !== "dir" && finder.isUnread(path)) return path;
  if (before !== null) return null;
  const parent = path.subarray(0, Math.max(path.lastIndexOf(0x2f), 0));
  return [parent, path].find((at) => at.length > 0 && finder.isOmitted(at)) ?? null;
}

/** Keeps a directory that has entries if the target has another kind of entry at its path. */
function keptPresent({ present }: PlanInput, difference: Difference): PlannedEntry | null {
  const { before, after } = difference;
  if (before?.type !== "dir" || after?.type === "dir" || present.list(before.subtree!).length === 0) return null;
  return kept(difference, "keep_present", "there is a directory at its path, with entries that --keep-present keeps");
}

const SLASH = Buffer.from("/");

/** The paths that a restore is limited to. */
class Selection {
  readonly #paths: readonly Uint8Array[];
  readonly #present: TreeSource;
  readonly #target: TreeSource;
  readonly #takesBack: boolean;
  readonly #chosen: PathSelection;
  readonly #seen = new Set<string>();
  /** The paths that the target has; looked up when a directory is to be made. */
  #there: PathSelection | null = null;

  constructor(paths: readonly Uint8Array[], { present, target, takesBack }: PlanInput) {
    this.#paths = paths;
    this.#present = present;
    this.#target = target;
    this.#takesBack = takesBack === true;
    this.#chosen = new PathSelection(paths);
  }

  /** True for a selected entry, for a directory that a selected entry needs, and for one made only for such an entry. */
  isWanted({ path, before, after }: Difference): boolean {
    const chosen = this.#chosen.chosenAt(path);
    if (chosen !== null) this.#seen.add(chosen);
    if (chosen !== null) return true;
    if (before?.type !== "dir") return after?.type === "dir" && this.#leadsToTarget(path);
    return this.#takesBack && after?.type !== "dir" && this.#chosen.leadsOn(path) && this.#isOnlyTheWay(path, before);
  }

  /** Tells if a directory holds selected entries alone. */
  #isOnlyTheWay(path: Uint8Array, { subtree }: TreeNode): boolean {
    const other = this.#present.list(subtree!).find((node) => {
      const inside = Buffer.concat([path, SLASH, node.name]);
      if (this.#chosen.chosenAt(inside) !== null) return false;
      return !(node.type === "dir" && this.#chosen.leadsOn(inside) && this.#isOnlyTheWay(inside, node));
    });
    return other === undefined;
  }

  #leadsToTarget(path: Uint8Array): boolean {
    if (!this.#chosen.leadsOn(path)) return false;
    if (this.#there === null) {
      const nodes = new NodeFinder(this.#target);
      this.#there = new PathSelection(this.#paths.filter((each) => nodes.at(each) !== null));
    }
    return this.#there.leadsOn(path);
  }

  /** Returns selected paths at and below which the states are equal. */
  unseen(): Uint8Array[] {
    return this.#paths.filter((path) => !this.#seen.has(latin1(path)) && !isSidecar(path, this.#paths));
  }
}

/** Tells if a path is a sidecar of a database among the paths. A database need not have each sidecar. */
export function isSidecar(path: Uint8Array, paths: readonly Uint8Array[]): boolean {
  const database = besideWhich(path);
  return database !== null && paths.some((each) => Buffer.compare(each, database) === 0);
}

/**
 * Throws `not_found` for a path that neither the target nor the folder has, unless the plan would give a reason. Runs
 * before the present is saved, so a mistyped path costs no save.
 */
export function requirePaths(
  paths: readonly Uint8Array[],
  { target, isThere, omitted, leftOutMounts, never }: Omit<PlanInput, "present" | "scan" | "paths" | "keepPresent">,
): void {
  const told = new PathSelection([
    ...(omitted ?? []).map(({ path }) => path),
    ...(leftOutMounts ?? []),
    ...(never ?? []),
  ]);
  const nodes = new NodeFinder(target);
  for (const path of paths)
    if (isThere?.(path) === false && !isSidecar(path, paths) && told.chosenAt(path) === null && nodes.at(path) === null)
      throw lacksPath(path, null);
}

function lacksPath(path: Uint8Array, why: string | null): CairnError {
  const said = why === null ? "is neither in the save point nor in the folder" : `is not in the save point: ${why}`;
  return new CairnError("not_found", `${quotedPath(path)} ${said}`, {
    hint: advice`${call("why PATH", "why", word("path"))} lists the save points that changed it`,
  });
}

/** Tells why the target lacks a path that was in the folder at the save or is there now. Null if neither had it. */
function whyLeftOut(
  { scan, isThere }: PlanInput,
  path: Uint8Array,
  { never, unseen, mounts }: Readonly<Record<"never" | "unseen" | "mounts", PathSelection>>,
): string | null {
  if (never.chosenAt(path) !== null) return OF_CONTROL;
  if (unseen.chosenAt(path) !== null) return MOUNTED_THEN;
  if (isThere?.(path) !== true) return null;
  if (mounts.chosenAt(path) !== null) return `${MOUNTED_NOW}, and the path did not exist at the save`;
  return scan.notes.ignoredCount > 0 ? "the ignore rules of the save left it out" : null;
}

function plan(difference: Difference, finder: RecordFinder): PlannedEntry {
  const { path, before, after, aspects } = difference;
  const record = finder.find(path);
  const old = record === null ? null : identityOf(record);
  const entry = { ...difference, old };
  if (before === null && finder.isOmitted(path)) {
    return {
      ...entry,
      action: "keep",
      reason: "unreadable",
      detail: "its present content could not be read, so the undo point would not have it",
    };
  }
  if (before !== null && record !== null && record.flags & FLAG.UNREAD)
    return { ...entry, action: "keep", reason: "unreadable", detail: UNREAD_NOW };
  if (before !== null && record !== null && record.flags & FLAG.TORN) {
    return {
      ...entry,
      action: "keep",
      reason: "changing",
      detail: "it changed while it was read, so the undo point may not have one whole version",
    };
  }
  if (before === null) return { ...entry, action: "create" };
  if (after === null) return { ...entry, action: "delete" };
  const content = aspects.some(
    (aspect) => aspect === "content" || aspect === "type" || aspect === "target" || aspect === "links",
  );
  // A change of metadata would also reach the file's other names, for example names outside the folder.
  const shared = after.type !== "dir" && (before.inode !== 0n || (old !== null && old.links > 1));
  return { ...entry, action: content || shared || losesAttributes(before, after) ? "update" : "metadata" };
}

/** True if an attribute has to go from an entry without content: then the entry is made again. */
function losesAttributes(before: TreeNode, after: TreeNode): boolean {
  if (after.type === "dir" || after.type === "file") return false;
  return before.xattrs.some(({ name }) => !after.xattrs.some((each) => Buffer.compare(each.name, name) === 0));
}

/** Returns a function that gives the undo point's node of a changed path. Call it in the order of the plan. */
export function savedNodesOf(plan: Plan): (path: Uint8Array) => TreeNode | null | undefined {
  const planned = inOrder(plan);
  return (where) => planned(({ path: each }) => Buffer.compare(each, where) === 0)?.before;
}

/** A hard-link group's member that is already right, with its node in the target. */
export interface Anchor {
  path: Uint8Array;
  node: TreeNode;
}

/** The hard-link groups of which a restore puts members in place. */
export interface RestoreLinks {
  /** by a group's number in the target: the member in the folder that the other members are linked to */
  anchors: ReadonlyMap<bigint, Anchor>;
  /** paths put in place without a link to group members that were not selected */
  apart: Uint8Array[];
}

/**
 * Finds the anchors: members that are already right, also outside the selected paths, and members that lack only the
 * link. `unasked`: differences outside the selected paths.
 */
export function linksOf(restore: {
  plan: Plan;
  unasked: readonly Difference[];
  target: TreeSource;
  source: TreeSource;
  scan: ScanResult;
}): RestoreLinks {
  const isPut = ({ after, action }: PlannedEntry): boolean => groupOf(after) !== 0n && PUTS.has(action);
  const put = Iterator.from(restore.plan).filter(isPut).toArray();
  const wanted = new Set(put.map(({ after }) => groupOf(after)));
  if (wanted.size === 0) return { anchors: new Map(), apart: [] };
  const anchors = unchangedMembers(restore, wanted);
  // The present group number of each anchor.
  const present = new Map<bigint, bigint>();
  const apart = new Set<bigint>();
  for (const { path, before, after, aspects } of restore.unasked) {
    const group = groupOf(after);
    if (!wanted.has(group)) continue;
    const isRight = before !== null && after !== null && aspects.every((aspect) => aspect === "links");
    if (isRight && !anchors.has(group)) {
      anchors.set(group, { path, node: after });
      present.set(group, before.inode);
    } else if (!isRight || before.inode === 0n || before.inode !== present.get(group)) apart.add(group);
  }
  return { anchors, apart: put.filter(({ after }) => apart.has(groupOf(after))).map(({ path }) => path) };
}

const PUTS: ReadonlySet<PlannedEntry["action"]> = new Set(["create", "update"]);

/** Returns the number of the target's hard-link group that an entry is in; 0 if in none. */
export function groupOf(after: Difference["after"]): bigint {
  return after?.inode ?? 0n;
}

function unchangedMembers(
  { plan, target, source, scan }: Parameters<typeof linksOf>[0],
  wanted: ReadonlySet<bigint>,
): Map<bigint, Anchor> {
  const anchors = new Map<bigint, Anchor>();
  const changed = new Set(Iterator.from(plan).map(({ path: where }) => latin1(where)));
  const nodes = { is: new NodeFinder(source), should: new NodeFinder(target) };
  for (const [, group] of scan.groups) {
    if (!wanted.has(group.inode) || changed.has(latin1(group.first))) continue;
    const is = nodes.is.at(group.first);
    const should = nodes.should.at(group.first);
    if (is !== null && should !== null && differences(is, should).length === 0)
      anchors.set(group.inode, { path: group.first, node: should });
  }
  return anchors;
}

/** Counts the directories that stay and whose metadata the plan changed. */
export function changedDirectories(plan: Plan, kept: readonly { path: Uint8Array }[]): number {
  const stayed = new Set(kept.map(({ path }) => latin1(path)));
  let count = 0;
  for (const { action, after, path } of withoutMovedTimes(plan))
    if (action === "metadata" && after?.type === "dir" && !stayed.has(latin1(path))) count++;
  return count;
}
