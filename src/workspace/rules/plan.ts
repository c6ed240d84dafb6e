import { FLAG } from "../../archive/cache/scan-table.ts";
import { type Identity, identityOf, RecordFinder } from "../../archive/scan/find-record.ts";
import type { ScanResult } from "../../archive/scan/scan.ts";
import type { PlanEntry } from "../../contract/points.ts";
import { directoryOf, hex, latin1 } from "../../formats/bytes.ts";
import { planIdOf } from "../../crypto/plan-id.ts";
import { TAKEN_OUT } from "../../formats/records/manifest.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import type { SavePointId } from "../../ids.ts";
import { withFormerOwner } from "../../fs/linux/user-namespace.ts";
import { PathSelection } from "../../fs/path-selection.ts";
import { displayPath, isAtOrBelow } from "../../fs/paths/safe-path.ts";
import { newPacer } from "../../pacer.ts";
import type { LeftOutEntry } from "../points/left-out.ts";
import { kindOf } from "../points/listed-entry.ts";
import { isOfGit } from "./git-files.ts";
import type { MadeContents } from "./made-contents.ts";
import { inOrder, type Listed, PackedList } from "../points/packed-list.ts";
import { type DiffAspect, type Difference, differences, withoutMovedTimes } from "../points/tree-diff.ts";

/** The reason for which an entry stays. */
interface Staying {
  reason: LeftOutEntry["reason"];
  detail: string;
}

/** A difference between the present and the wanted state, which a rule lists. */
export interface Change extends Difference {
  /** the entry stays as it is, and is named */
  stays?: Staying;
  /** aspects that stay as they are, because they were edited since; the others change */
  edited?: readonly DiffAspect[];
  /** why they stay */
  detail?: string;
  /** a directory that was made for other entries: it goes if nothing is in it any more */
  isWay?: boolean;
}

/** Lists the changes that lead to the wanted state. */
export interface Rule {
  /** Yields the entries to change and those that stay, in raw pre-order. */
  changes(): Iterable<Change>;
  /** After all changes: paths that stay, so that the directories above them stay too. */
  staying?(): Iterable<Uint8Array>;
}

/** One entry, and the change that a restore makes to it. */
export interface PlannedEntry extends Difference {
  action: "create" | "update" | "delete" | "metadata" | "keep";
  /** the saved lstat of the present entry; null if the path is empty */
  old: Identity | null;
  reason?: LeftOutEntry["reason"];
  detail?: string;
  /** aspects that stay although the entry changes; `reason` and `detail` are about these */
  edited?: readonly DiffAspect[];
}

/** The entries that a restore changes or keeps, in raw pre-order. */
export type Plan = Listed<PlannedEntry>;

/** Facts about entries that no restore changes. */
export interface Protected {
  /** the scan of the present folder */
  scan: ScanResult;
  /** entries that the target's save could not read: a present entry at such a path stays */
  omitted: readonly { path: Uint8Array; reason: string }[];
  /** entries of which the target's save could not read all attributes: the present attributes stay */
  partial: readonly { path: Uint8Array }[];
  /** mounts that the target's save left out: the target knows nothing of the entries below them */
  leftOutMounts: readonly Uint8Array[];
  /** parts of control directories, which no restore changes */
  never: readonly Uint8Array[];
  /** tells if a directory lies in another mount or subvolume inside the folder: such entries are kept; absent: none does */
  isInside?: ((directory: Uint8Array) => boolean) | undefined;
  /** tells if the folder has an entry, also one that the scan left out */
  isThere(path: Uint8Array): boolean;
}

export const NOTHING_UNKNOWN: Omit<Protected, "scan" | "isThere"> = {
  omitted: [],
  partial: [],
  leftOutMounts: [],
  never: [],
};

/**
 * Plans the changes of a rule, in raw pre-order. Changes no file. Entries that the undo point does not hold completely
 * are kept.
 */
export async function planRestore(rule: Rule, facts: Omit<Protected, "isThere">, signal?: AbortSignal): Promise<Plan> {
  const pace = newPacer(signal);
  const finder = new RecordFinder(facts.scan);
  const guard = new Guard(facts, finder);
  const entries = new PackedList<PlannedEntry>();
  const ways = new Set<string>();
  let closed: Uint8Array | null = null;
  for (const { stays, edited, detail, isWay, ...difference } of rule.changes()) {
    await pace();
    if (stays !== undefined) {
      entries.push(kept(difference, stays));
      continue;
    }
    closed = unreadableAt(difference, finder) ?? closed;
    // A directory that cannot be read stays with all its entries; the directory itself is named.
    if (closed !== null && difference.path.length > closed.length && isAtOrBelow(difference.path, closed)) continue;
    if (isWay === true) ways.add(latin1(difference.path));
    const planned = guard.plan(difference) ?? plan(difference, finder);
    entries.push(
      edited === undefined || planned.action === "keep"
        ? planned
        : { ...planned, ...EDITED_IN_PART, ...(detail && { detail }), edited },
    );
  }
  // Nodes of a scan are parts of its tables, which a restore frees before it ends.
  entries.own();
  return withoutHeld(entries, { ways, inside: guard.inside, edited: [...(rule.staying?.() ?? [])] });
}

/**
 * Returns the id of a plan: 32 hex digits of a SHA-256 over `options` and each entry with its action, its reason, and type,
 * mode, owner, attributes and content of both sides. Times and inodes are not in it.
 */
export function planId(
  options: readonly unknown[],
  { plan, scan, made }: { plan: Plan; scan: ScanResult; made: MadeContents },
): string {
  const finder = new RecordFinder(scan);
  const side = (node: TreeNode | null): unknown =>
    node && [
      node.type,
      node.mode,
      node.uid,
      node.gid,
      // A made content follows from the other side and the points; a line of a reflog has the current time.
      ...(node.type === "dir" || made.has(node)
        ? []
        : [node.size, hex(node.content ?? NO_BYTES), hex(node.linktarget ?? NO_BYTES), String(node.device)]),
      node.xattrs.map(({ name, value }) => [hex(name), hex(value)]),
    ];
  function* facts(): Generator<unknown> {
    yield options;
    for (const { path, action, reason, edited, before, after, aspects } of plan) {
      if (isTimesOnly({ before, after, aspects })) continue;
      // A scan that stores nothing and one that does may cut files otherwise, so the scan's own facts count.
      const present = before === null ? null : (finder.nodeOf(path) ?? before);
      yield [hex(path), action, reason ?? null, edited ?? [], side(present), side(after)];
    }
  }
  return planIdOf(facts());
}

/** Lists the entries of a plan as a caller is shown them. `changesRoot`: the folder's own metadata changes too. */
export function publicEntries(entries: Plan, changesRoot: boolean): PlanEntry[] {
  const own = { path: "", action: "metadata", kind: "directory" } as const;
  return [...(changesRoot ? [own] : []), ...withoutMovedTimes(entries).map(publicEntry)];
}

const MOST_SHOWN = 10;

function isTimesOnly({ before, after, aspects }: Omit<Difference, "path">): boolean {
  return before !== null && after !== null && aspects.every((aspect) => aspect === "times");
}

/** Lists the first entries that a plan changes in more than their times. Entries of git come last. */
export function firstChanged(entries: Plan, stays: PathSelection): PlanEntry[] {
  const isNamed = (entry: PlannedEntry): boolean =>
    entry.action !== "keep" && !isTimesOnly(entry) && stays.chosenAt(entry.path) === null;
  const some = [false, true].flatMap((ofGit) =>
    Iterator.from(entries)
      .filter((entry) => isOfGit(entry.path) === ofGit && isNamed(entry))
      .take(MOST_SHOWN)
      .toArray(),
  );
  return some.slice(0, MOST_SHOWN).map(publicEntry);
}

function publicEntry({ path, action, before, after, reason }: PlannedEntry): PlanEntry {
  return {
    ...displayPath(path),
    action,
    kind: kindOf((after ?? before)!),
    ...(after?.type === "file" && (action === "create" || action === "update") ? { size: after.size } : {}),
    ...(reason === undefined ? {} : { reason }),
  };
}

const NO_BYTES = new Uint8Array(0);

const EDITED_IN_PART = {
  reason: "changed_since",
  detail: "it went back in part: the rest was changed after the operation that is reverted, and stays",
} as const;

/** Keeps the directories with entries that stay: those of another mount, and newer ones. */
function withoutHeld(
  entries: PackedList<PlannedEntry>,
  { ways, inside, edited }: { ways: ReadonlySet<string>; inside: readonly Uint8Array[]; edited: readonly Uint8Array[] },
): Plan {
  if (inside.length + edited.length === 0) return entries;
  const held = new PathSelection([...inside, ...edited]);
  const stays = { reason: inside.length > 0 ? "mounted" : "changed_since", detail: HOLDS_WHAT_STAYS } as const;
  const all = new PackedList<PlannedEntry>();
  for (const entry of entries) {
    const goes = entry.before?.type === "dir" && entry.after?.type !== "dir" && entry.action !== "keep";
    if (!goes || !held.leadsOn(entry.path)) all.push(entry);
    else if (!ways.has(latin1(entry.path))) all.push(kept(entry, stays));
  }
  return all;
}

/** Keeps the entries that no restore changes. */
class Guard {
  readonly #isInside: Protected["isInside"];
  readonly #finder: RecordFinder;
  readonly #mounts: PathSelection;
  readonly #unknown: PathSelection;
  readonly #takenOut: PathSelection;
  readonly #unseen: PathSelection;
  readonly #never: PathSelection;
  readonly #partial: ReadonlySet<string>;
  /** present entries in another mount or subvolume inside the folder */
  readonly inside: Uint8Array[] = [];

  constructor(facts: Omit<Protected, "isThere">, finder: RecordFinder) {
    const { scan, omitted, partial, leftOutMounts, never } = facts;
    this.#isInside = facts.isInside;
    this.#finder = finder;
    this.#mounts = new PathSelection(scan.notes.mounts);
    this.#unknown = new PathSelection(omitted.map(({ path }) => path));
    this.#takenOut = new PathSelection(omitted.flatMap(({ path, reason }) => (reason === TAKEN_OUT ? [path] : [])));
    this.#unseen = new PathSelection(leftOutMounts);
    this.#never = new PathSelection(never);
    this.#partial = new Set(partial.map(({ path }) => latin1(path)));
  }

  /** Returns the entry as it stays, or with other attributes; null if the entry may be changed. */
  plan(difference: Difference): PlannedEntry | null {
    const stays = this.#whyStays(difference);
    if (stays !== null) return kept(difference, stays);
    if (!this.#partial.has(latin1(difference.path))) return null;
    const known = withPresentAttributes(difference);
    if (known === null) return kept(difference, { reason: "unreadable", detail: PARTIAL_IN_TARGET });
    return known === difference ? null : plan(known, this.#finder);
  }

  #whyStays(difference: Difference): Staying | null {
    const { path, after } = difference;
    const isIn = (selection: PathSelection): boolean => selection.chosenAt(path) !== null;
    if (isIn(this.#never)) return { reason: "not_saved", detail: OF_CONTROL };
    if (after === null && isIn(this.#unseen)) return { reason: "mounted", detail: MOUNTED_THEN };
    if (isIn(this.#mounts)) return { reason: "mounted", detail: MOUNTED_NOW };
    if (this.#isInside?.(difference.before?.type === "dir" ? path : directoryOf(path)) === true) {
      if (difference.before !== null) this.inside.push(path);
      return { reason: "mounted", detail: IN_ANOTHER };
    }
    if (after !== null || !isIn(this.#unknown)) return null;
    return isIn(this.#takenOut)
      ? { reason: "taken_out", detail: TAKEN_OUT }
      : { reason: "unreadable", detail: UNKNOWN_IN_TARGET };
  }
}

/** Reasons to keep an entry. Removing an entry that the target's save could not read would lose it. */
const UNKNOWN_IN_TARGET = "it was unreadable when it was saved, so the save point does not have its content";
const PARTIAL_IN_TARGET = "the save point lacks some of its extended attributes, so the present ones stay";
const UNREADABLE_NOW = "its present content could not be read, so the undo point would not have it";
const TORN_NOW = "it changed while it was read, so the undo point may not have one whole version";
const UNREAD_NOW = "its extended attributes cannot be read, so the undo point would not have all of it";
export const MOUNTED_THEN = "a file system was mounted there at the save, and was left out";
export const MOUNTED_NOW = "another file system is mounted there";
export const HOLDS_WHAT_STAYS = "some of its entries stay";
export const IN_ANOTHER =
  "it is in a nested subvolume or another file system, which a restore in place does not change: restore it with --to";
export const OF_CONTROL = "it is among Cairn's own files, which no restore changes";

function kept({ path, before, after, aspects }: Difference, stays: Staying): PlannedEntry {
  return { path, before, after, aspects, old: null, action: "keep", ...stays };
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
  return [directoryOf(path), path].find((at) => at.length > 0 && finder.isOmitted(at)) ?? null;
}

function plan(difference: Difference, finder: RecordFinder): PlannedEntry {
  const { path, before, aspects } = difference;
  const record = finder.find(path);
  const old = record === null ? null : identityOf(record);
  const isSame = !aspects.includes("content") && !aspects.includes("type");
  const after =
    before === null || difference.after === null
      ? difference.after
      : withFormerOwner(difference.after, before, isSame && before.type === "file");
  const entry = { ...difference, after, old };
  const stays = whyNotHeldWhole(difference, record, finder);
  if (stays !== null) return { ...entry, action: "keep", ...stays };
  if (before === null) return { ...entry, action: "create" };
  if (after === null) return { ...entry, action: "delete" };
  const content = aspects.some(
    (aspect) => aspect === "content" || aspect === "type" || aspect === "target" || aspect === "links",
  );
  // A change of metadata would also reach the file's other names, for example names outside the folder.
  const shared = after.type !== "dir" && (before.inode !== 0n || (old !== null && old.links > 1));
  return { ...entry, action: content || shared || losesAttributes(before, after) ? "update" : "metadata" };
}

/** Tells why the undo point would not have all of the present entry; null if it has. */
function whyNotHeldWhole(
  { path, before }: Difference,
  record: ReturnType<RecordFinder["find"]>,
  finder: RecordFinder,
): Staying | null {
  if (before === null) return finder.isOmitted(path) ? { reason: "unreadable", detail: UNREADABLE_NOW } : null;
  const flags = record?.flags ?? 0;
  if (flags & FLAG.UNREAD) return { reason: "unreadable", detail: UNREAD_NOW };
  return flags & FLAG.TORN ? { reason: "changing", detail: TORN_NOW } : null;
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

/** Counts the directories that stay and whose metadata the plan changed. */
export function changedDirectories(plan: Plan, kept: readonly { path: Uint8Array }[]): number {
  const stayed = new Set(kept.map(({ path }) => latin1(path)));
  let count = 0;
  for (const { action, after, path } of withoutMovedTimes(plan))
    if (action === "metadata" && after?.type === "dir" && !stayed.has(latin1(path))) count++;
  return count;
}

/** Entries that a change of a folder changed. `left`: the point of the state that an entry was left in, if not the target. */
type OwnPaths = { path: Uint8Array; left?: SavePointId }[];

/** More paths are not worth a record: an undo then compares the whole folder. */
const MOST_OWN = 10_000;

/**
 * Returns the changed paths of a plan if the folder will differ from the target otherwise than in times, else null.
 * `newer`: by latin1 path, the points of which other entries than the target's come back.
 */
export function ownPaths(
  plan: Plan,
  toTarget: Iterable<Difference>,
  newer: ReadonlyMap<string, SavePointId>,
): OwnPaths | null {
  if (plan.length > MOST_OWN) return null;
  const all = (): OwnPaths =>
    Iterator.from(plan)
      .filter(({ action }) => action !== "keep")
      .map(({ path }) => {
        const left = newer.get(latin1(path));
        return { path, ...(left && { left }) };
      })
      .toArray();
  if (newer.size > 0) return all();
  const changed = new Set<string>();
  for (const { path, action, edited } of plan) if (action !== "keep" && edited === undefined) changed.add(latin1(path));
  for (const { path, aspects, before, after } of toTarget) {
    if (!isTimesOnly({ before, after, aspects }) && !changed.has(latin1(path))) return all();
  }
  return null;
}
