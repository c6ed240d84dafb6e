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
} from "../points/tree-diff.ts";

export { findNode } from "../points/tree-diff.ts";

/** One entry, and the change that a restore makes to it. */
export interface PlannedEntry extends Difference {
  action: "create" | "update" | "delete" | "metadata" | "keep";
  /** lstat of what is there, as it was saved; null where nothing is */
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
  /** what the manifests add to the trees; absent: nothing */
  fields?: ExactFields;
  /** entries that the target's save could not read: what is there now is nothing that the target does not have */
  omitted?: readonly { path: Uint8Array; reason: string }[];
  /** entries of which the target's save could not read all attributes: those that are there now stay */
  partial?: readonly { path: Uint8Array }[];
  /** where something was mounted when the target was saved, and left out: nobody saw what was below it */
  leftOutMounts?: readonly Uint8Array[];
  /** parts of control directories, which nothing touches */
  never?: readonly Uint8Array[];
  /** whether a directory lies in another mount or subvolume inside the folder, where nothing is changed; absent: none does */
  isInside?: ((directory: Uint8Array) => boolean) | undefined;
  /** whether the folder itself has an entry, which a scan that leaves it out does not tell; absent: as the scan says */
  isThere?: (path: Uint8Array) => boolean;
  /** paths that are in neither are no mistake: they were looked for before, or what a restore changed is undone and gone on both sides */
  mayLackPaths?: boolean;
  /** a restore of the paths is taken back: directories that it made on the way to them go too */
  takesBack?: boolean;
  /** an undo or redo: only entries that the operation changed are planned, and those that were edited since are kept */
  reverts?: OperationParts;
  /** told of a directory that is damaged in either state, and stays as it is with all below it; absent: that throws `damaged` */
  onDamaged?: OnDamagedDirectory;
  /** told of what differs beside the paths */
  onUnasked?: (difference: Difference) => void;
  signal?: AbortSignal | undefined;
}

/**
 * Compares the present with the target and says what is to be done, in raw pre-order. Pure: nothing is touched.
 * What the undo point does not hold whole is kept.
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
    // A directory that cannot be looked into stays whole; it is named itself.
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
  const staying = [...inside, ...(reverting?.staying ?? [])];
  if (staying.length === 0) return entries;
  // A directory stays with what is mounted in it, or was put into it since.
  const held = new PathSelection(staying);
  const reason = inside.length > 0 ? "mounted" : "changed_since";
  const all = new PackedList<PlannedEntry>();
  for (const entry of entries) {
    const goes = entry.before?.type === "dir" && entry.after?.type !== "dir" && entry.action !== "keep";
    all.push(goes && held.leadsOn(entry.path) ? kept(entry, reason, HOLDS_WHAT_STAYS) : entry);
  }
  return all;
}

/** Follows a plan in raw pre-order and tells what an undo or redo leaves alone. */
class Reverting {
  readonly #parts: OperationParts;
  /** Directories that somebody removed since; each is made only if an entry below it comes back. */
  #missing: Difference[] = [];
  /** A directory that somebody removed or replaced since: no entry below its path comes back. */
  #closed: Uint8Array | null = null;
  /** Entries that stay, and so do the directories above them. */
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

  /** Returns the missing directories above `path`, the outermost first; each once. */
  directoriesFor(path: Uint8Array): Difference[] {
    return this.#missing.splice(0).filter((each) => isAtOrBelow(path, each.path));
  }
}

/** The directory that an entry is or lies in. */
function directoryOf({ path, before }: Difference): Uint8Array {
  return before?.type === "dir" ? path : path.subarray(0, Math.max(path.lastIndexOf(0x2f), 0));
}

/** Reasons to keep an entry. Taking away one that the target could not read would not bring back what it had. */
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

/**
 * The difference when attributes that only the present has count for the target's entry, too; null where none is left.
 */
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

/** The entry itself or the directory that it is in, where the present save could not read it; else null. */
function unreadableAt({ path, before, after }: Difference, finder: RecordFinder): Uint8Array | null {
  // It stays with what lies in it where it was not read whole and is to go.
  if (before?.type === "dir" && after?.type !== "dir" && finder.isUnread(path)) return path;
  if (before !== null) return null;
  const parent = path.subarray(0, Math.max(path.lastIndexOf(0x2f), 0));
  return [parent, path].find((at) => at.length > 0 && finder.isOmitted(at)) ?? null;
}

/** A directory that holds what the target has nothing of stands where the target has something else. */
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

  /** Selected itself, or an ancestor that has to be made so that a selected entry can exist, or was made for it. */
  isWanted({ path, before, after }: Difference): boolean {
    const chosen = this.#chosen.chosenAt(path);
    if (chosen !== null) this.#seen.add(chosen);
    if (chosen !== null) return true;
    if (before?.type !== "dir") return after?.type === "dir" && this.#leadsToTarget(path);
    return this.#takesBack && after?.type !== "dir" && this.#chosen.leadsOn(path) && this.#isOnlyTheWay(path, before);
  }

  /** Tells if a directory holds nothing but what is selected. */
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

  /** Paths at and below which nothing differs. */
  unseen(): Uint8Array[] {
    return this.#paths.filter((path) => !this.#seen.has(latin1(path)) && !isSidecar(path, this.#paths));
  }
}

/** Tells if a path belongs to a database among the paths: not each database has each such file. */
export function isSidecar(path: Uint8Array, paths: readonly Uint8Array[]): boolean {
  const database = besideWhich(path);
  return database !== null && paths.some((each) => Buffer.compare(each, database) === 0);
}

/**
 * Throws `not_found` for a path that is neither in the target nor in the folder, for no reason that the plan would tell: before
 * anything is saved for the sake of a mistyped one.
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

/**
 * Tells why a path is not in the target that was in the folder when it was saved, or is now; null where it is in
 * neither.
 */
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
  // Setting metadata of a file with several names would also set it for names that are not to have it: moved away, or outside.
  const shared = after.type !== "dir" && (before.inode !== 0n || (old !== null && old.links > 1));
  return { ...entry, action: content || shared || losesAttributes(before, after) ? "update" : "metadata" };
}

/** An attribute is to go, and there is no content that would speak against making the entry anew. */
function losesAttributes(before: TreeNode, after: TreeNode): boolean {
  if (after.type === "dir" || after.type === "file") return false;
  return before.xattrs.some(({ name }) => !after.xattrs.some((each) => Buffer.compare(each.name, name) === 0));
}

/** Nodes of the undo point where the plan changes something, for who asks in the order of its steps. */
export function savedNodesOf(plan: Plan): (path: Uint8Array) => TreeNode | null | undefined {
  const planned = inOrder(plan);
  return (where) => planned(({ path: each }) => Buffer.compare(each, where) === 0)?.before;
}

/** A member of a group that is right where it is, with its node in the target. */
export interface Anchor {
  path: Uint8Array;
  node: TreeNode;
}

/** The hard-link groups of which a restore puts members in place, and what becomes of them. */
export interface RestoreLinks {
  /** by a group's number in the target: the member in the folder that the others are linked to */
  anchors: ReadonlyMap<bigint, Anchor>;
  /** put in place, and not linked any more to what was not asked for */
  apart: Uint8Array[];
}

/**
 * A group's members that are right already are what the others are linked to, also where they were not asked for; those
 * that only lack being linked too. `unasked`: what differs of other paths than the chosen ones.
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
  // The number that the group of an anchor has in the present.
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

/** The number of the group that an entry of the target is in; 0 for none. */
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
