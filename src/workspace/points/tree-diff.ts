import type { TreeSource } from "../../repository/trees/tree-source.ts";
import { comparePaths, directoryOf, joinPath, latin1 } from "../../formats/bytes.ts";
import { nodeOfSlice, sameSlice, sliceTree, type TreeSlices } from "../../formats/restic/tree-slices.ts";
import { mayBeSameId, unknownBits } from "../../fs/linux/user-namespace.ts";
import { isShadow } from "../../fs/linux/shadow-attributes.ts";
import { nodeNamed, pairsByName, type TreeNode, type TreeNodes } from "../../formats/restic/tree.ts";
import { linkGroupNumber } from "../../archive/scan/link-groups.ts";
import { exactNode, type LosslessByPath, losslessByPath } from "../../archive/write/exact-nodes.ts";
import type { LosslessField, Manifest } from "../../formats/records/manifest.ts";
import type { ChangeCounts } from "../../archive/scan/summary.ts";
import { collectPaced, newPacer } from "../../pacer.ts";
import fs from "node:fs";
import { isDeepStrictEqual } from "node:util";
import { isAtOrBelow, joinRaw } from "../../fs/paths/safe-path.ts";
import { type CairnError, toCairnError } from "../../errors.ts";
import { PathSelection } from "../../fs/path-selection.ts";

export type DiffAspect = "content" | "mode" | "type" | "owner" | "times" | "xattrs" | "target" | "links";

/** One entry that differs between two states. `before` or `after` is null if that state lacks the entry. */
export interface Difference {
  /** below the root, raw bytes */
  path: Uint8Array;
  before: TreeNode | null;
  after: TreeNode | null;
  /** kinds of differences, for entries that both states have */
  aspects: DiffAspect[];
}

/** Called with a directory that is damaged in either state: nothing below it is compared. */
export type OnDamagedDirectory = (path: Uint8Array, error: CairnError) => void;

/**
 * Compares two states in raw pre-order, and skips directories that have the same reference in both states. A directory
 * that only one state has comes with everything below it. Throws `damaged` without `onDamaged`, and for the root.
 */
export function* diffTrees(
  before: TreeSource,
  after: TreeSource,
  onDamaged?: OnDamagedDirectory,
): Generator<Difference> {
  if (Buffer.compare(before.root, after.root) === 0) return;
  const sources = { before, after };
  // Paths can have thousands of names: recursion would overflow the stack.
  const open: OpenPair[] = [
    { path: new Uint8Array(0), pairs: pairsOf(sources, { before: before.root, after: after.root }) },
  ];
  for (let top = open.at(-1); top !== undefined; top = open.at(-1)) {
    const pair = nextPair(top, open.length > 1 ? onDamaged : undefined);
    if (pair === null) {
      open.pop();
      continue;
    }
    const { difference, below, path } = entry(top.path, pair);
    if (difference !== null) yield difference;
    if (below !== null) open.push({ path, pairs: pairsOf(sources, below) });
  }
}

/** Null at the end of the two directories, or if one of them is unreadable. */
function nextPair({ path, pairs }: OpenPair, onDamaged?: OnDamagedDirectory): Sides<TreeNode | null> | null {
  try {
    const { done, value } = pairs.next();
    return done === true ? null : value;
  } catch (error) {
    const known = toCairnError(error);
    if (known.code !== "damaged" || onDamaged === undefined) throw error;
    onDamaged(path, known);
    return null;
  }
}

interface Sides<T> {
  before: T;
  after: T;
}

/** Two directories of one path, and their entries that were not compared yet. */
interface OpenPair {
  path: Uint8Array;
  pairs: Generator<Sides<TreeNode | null>>;
}

/** Pairs the entries of two directories by name. Leaves out equal entries if that is cheap to see. */
function* pairsOf(sources: Sides<TreeSource>, references: Sides<Uint8Array | null>): Generator<Sides<TreeNode | null>> {
  const { before, after } = references;
  if (before !== null && after !== null) {
    const known = sources.before.differing?.(sources.after, before, after);
    if (known !== undefined) {
      yield* known;
      return;
    }
    const a = sources.before.raw === undefined ? null : sliceTree(sources.before.raw(before));
    const b = a === null || sources.after.raw === undefined ? null : sliceTree(sources.after.raw(after));
    if (a !== null && b !== null) {
      yield* differingSlices(a, b);
      return;
    }
  }
  yield* pairsByName(
    before === null ? [] : sources.before.list(before),
    after === null ? [] : sources.after.list(after),
  );
}

function* differingSlices(a: TreeSlices, b: TreeSlices): Generator<Sides<TreeNode | null>> {
  const ends = { before: a.starts.length - 1, after: b.starts.length - 1 };
  let i = 0;
  let j = 0;
  while (i < ends.before || j < ends.after) {
    if (i < ends.before && j < ends.after && sameSlice(a, i, b, j)) {
      i++;
      j++;
      continue;
    }
    const old = i < ends.before ? nodeOfSlice(a, i) : null;
    const now = j < ends.after ? nodeOfSlice(b, j) : null;
    const order = old === null ? 1 : now === null ? -1 : Buffer.compare(old.name, now.name);
    if (order <= 0) i++;
    if (order >= 0) j++;
    yield { before: order <= 0 ? old : null, after: order >= 0 ? now : null };
  }
}

interface EntryPair {
  path: Uint8Array;
  /** null if the entries are equal */
  difference: Difference | null;
  /** subdirectories to compare; null if there are none */
  below: Sides<Uint8Array | null> | null;
}

function entry(parent: Uint8Array, { before, after }: Sides<TreeNode | null>): EntryPair {
  const name = (before ?? after)!.name;
  const below = {
    before: before?.type === "dir" ? before.subtree! : null,
    after: after?.type === "dir" ? after.subtree! : null,
  };
  const aspects = before === null || after === null ? [] : differences(before, after);
  const differs = before === null || after === null || aspects.length > 0;
  const descend =
    below.before === null
      ? below.after !== null
      : below.after === null || Buffer.compare(below.before, below.after) !== 0;
  // Most entries are equal, and their path is not needed.
  const path = differs || descend ? joinPath(parent, name) : name;
  return { path, difference: differs ? { path, before, after, aspects } : null, below: descend ? below : null };
}

/** The node at a path of a state; null if there is none. The root has no node. */
export function findNode(source: TreeSource, path: Uint8Array): TreeNode | null {
  return new NodeFinder(source).at(path);
}

/** Finds the nodes of many paths: each directory is listed once. */
export class NodeFinder {
  readonly #source: TreeSource;
  /** Entries by the references of their directories, in latin1. */
  readonly #directories = new Map<string, TreeNodes>();

  constructor(source: TreeSource) {
    this.#source = source;
  }

  at(path: Uint8Array): TreeNode | null {
    let directory: Uint8Array | undefined = this.#source.root;
    let node: TreeNode | null = null;
    for (const name of Buffer.from(path).toString("latin1").split("/")) {
      if (directory === undefined) return null;
      node = nodeNamed(this.#entries(directory), Buffer.from(name, "latin1")) ?? null;
      directory = node?.type === "dir" ? node.subtree : undefined;
    }
    return node;
  }

  #entries(directory: Uint8Array): TreeNodes {
    const key = Buffer.from(directory).toString("latin1");
    let entries = this.#directories.get(key);
    if (entries === undefined) {
      entries = this.#source.list(directory);
      this.#directories.set(key, entries);
    }
    return entries;
  }
}

/** Lists the aspects in which two nodes of one name differ, without entries below directories. */
export function differences(a: TreeNode, b: TreeNode): DiffAspect[] {
  const aspects: DiffAspect[] = [];
  if (a.type !== b.type) aspects.push("type");
  else {
    if (a.type === "file" && (a.size !== b.size || !sameBytes(a.content, b.content))) aspects.push("content");
    if (a.type === "symlink" && !sameBytes(a.linktarget, b.linktarget)) aspects.push("target");
    if (a.device !== b.device) aspects.push("content");
    if (a.inode !== b.inode) aspects.push("links");
  }
  const unknown = a.type === "file" ? unknownBits(a) | unknownBits(b) : 0;
  if (((a.mode ^ b.mode) & ~unknown) !== 0) aspects.push("mode");
  if (!mayBeSameId(a.uid, b.uid) || !mayBeSameId(a.gid, b.gid)) aspects.push("owner");
  if (a.mtimeSec !== b.mtimeSec || a.mtimeNs !== b.mtimeNs) aspects.push("times");
  if (!sameAttributes(a, b)) aspects.push("xattrs");
  return aspects;
}

function sameAttributes(a: TreeNode, b: TreeNode): boolean {
  const [ofA, ofB] = [writtenAttributes(a), writtenAttributes(b)];
  if (ofA.length !== ofB.length) return false;
  return ofA.every(({ name, value }, i) => sameBytes(name, ofB[i]!.name) && sameBytes(value, ofB[i]!.value));
}

/** Attributes that a restore writes. Other programs and earlier versions of Cairn recorded more. */
function writtenAttributes({ xattrs }: TreeNode): TreeNode["xattrs"] {
  return xattrs.some(({ name }) => isShadow(name)) ? xattrs.filter(({ name }) => !isShadow(name)) : xattrs;
}

function sameBytes(a: Uint8Array | undefined, b: Uint8Array | undefined): boolean {
  return Buffer.compare(a ?? EMPTY, b ?? EMPTY) === 0;
}

const EMPTY = new Uint8Array(0);

/** Fields in the manifests of two states for entries that nodes cannot describe exactly. */
export interface ExactFields {
  before: readonly LosslessField[];
  after: readonly LosslessField[];
}

/** Lists the differences of two states in raw pre-order, including those that only their manifests show. */
export function exactDifferences(
  before: TreeSource,
  after: TreeSource,
  fields: ExactFields,
  onDamaged?: OnDamagedDirectory,
): Iterable<Difference> {
  if (fields.before.length === 0 && fields.after.length === 0) return diffTrees(before, after, onDamaged);
  const unread = new PathSelection([]);
  const noteDamaged: OnDamagedDirectory = (path, error) => {
    unread.add(path);
    onDamaged!(path, error);
  };
  const maps = { before: losslessByPath(fields.before), after: losslessByPath(fields.after) };
  const nodes = { before: new NodeFinder(before), after: new NodeFinder(after) };
  const found = new Map<string, Difference>();
  const differing = diffTrees(before, after, onDamaged && noteDamaged);
  for (const difference of differing) found.set(key(difference.path), exact(difference, maps));
  for (const path of new Set([...maps.before.keys(), ...maps.after.keys()])) {
    // If both manifests have the same fields, the nodes show all differences.
    if (found.has(path) || isDeepStrictEqual(maps.before.get(path), maps.after.get(path))) continue;
    const raw = Buffer.from(path, "latin1");
    if (unread.chosenAt(raw) !== null) continue;
    const sides = { before: nodes.before.at(raw), after: nodes.after.at(raw) };
    if (sides.before !== null && sides.after !== null)
      found.set(path, exact({ path: raw, ...sides, aspects: [] }, maps));
  }
  return [...found.values()]
    .filter(({ before: old, after: now, aspects }) => old === null || now === null || aspects.length > 0)
    .toSorted((a, b) => comparePaths(a.path, b.path));
}

function exact(difference: Difference, maps: { before: LosslessByPath; after: LosslessByPath }): Difference {
  const { path } = difference;
  const before = withFields(difference.before, maps.before.get(key(path)));
  const after = withFields(difference.after, maps.after.get(key(path)));
  return { path, before, after, aspects: before === null || after === null ? [] : differences(before, after) };
}

/** Returns an entry as its manifest describes it. */
export function withFields(node: TreeNode | null, fields: readonly LosslessField[] | undefined): TreeNode | null {
  if (node === null || fields === undefined) return node;
  const made = exactNode(node, fields);
  const link = fields.find(({ field }) => field === "hard_link");
  return link === undefined ? made : { ...made, inode: linkGroupNumber(link.value), links: 2 };
}

function key(path: Uint8Array): string {
  return Buffer.from(path).toString("latin1");
}

/** Leaves out directories that differ only in their times because an entry directly inside was added or removed. */
export function* withoutMovedTimes<T extends Difference>(all: Iterable<T> & { readonly length: number }): Generator<T> {
  const moved = new Set<string>();
  for (const { path, before, after } of all)
    if (before === null || after === null) moved.add(latin1(directoryOf(path)));
  for (const difference of all)
    if (!isTimesOnly(difference) || !moved.has(Buffer.from(difference.path).toString("latin1"))) yield difference;
}

function isTimesOnly({ after, aspects }: Difference): boolean {
  return after?.type === "dir" && aspects.length === 1 && aspects[0] === "times";
}

export async function countDifferences(
  before: TreeSource,
  after: TreeSource,
  signal: AbortSignal | undefined,
  unread: readonly Unread[] = [],
): Promise<ChangeCounts> {
  const all = await collectPaced(diffTrees(before, after), newPacer(signal));
  return countOf(withoutUnread(all, unread));
}

/** An entry that a state lacks because it could not be read. */
export type Unread = Manifest["omitted"][number];

/** Leaves out entries that the later state lacks because they could not be read: they are not removed. */
export function withoutUnread(listed: readonly Difference[], unread: readonly Unread[]): readonly Difference[] {
  if (unread.length === 0) return listed;
  const selection = new PathSelection(unread.map(({ path }) => path));
  return listed.filter(({ path, after }) => after !== null || selection.chosenAt(path) === null);
}

/** Counts listed differences. */
export function countOf(listed: readonly Difference[]): ChangeCounts {
  const counts: ChangeCounts = { added: 0, modified: 0, removed: 0 };
  for (const difference of withoutMovedTimes(listed)) {
    if (difference.before === null) counts.added++;
    else if (difference.after === null) counts.removed++;
    else counts.modified++;
  }
  return counts;
}

/** Entries that a state lacks and the folder has, because a rule leaves them out. */
export interface NotKept {
  count: number;
  /** the first 100, without paths below them */
  paths: Uint8Array[];
}

/** Lists entries that the later of two states lacks, in pre-order, and that still lie in the folder: a rule leaves them out. */
export async function missingButThere(
  differences: Iterable<Difference>,
  { root }: { root: Uint8Array },
  signal: AbortSignal | undefined,
): Promise<NotKept> {
  const pace = newPacer(signal);
  const found: NotKept = { count: 0, paths: [] };
  let above: Uint8Array | null = null;
  for (const difference of differences) {
    await pace();
    const { path, after: now } = difference;
    if (now !== null) continue;
    const isBelow = above !== null && isAtOrBelow(path, above);
    if (!isBelow && !isHidden(difference, root)) continue;
    found.count++;
    if (isBelow) continue;
    above = path;
    if (found.paths.length < SHOWN_NOT_KEPT) found.paths.push(path);
  }
  return found;
}

const SHOWN_NOT_KEPT = 100;

/** Tells if an entry that the later state lacks still lies in the folder. */
export function isHidden({ path, after }: Difference, root: Uint8Array): boolean {
  if (after !== null) return false;
  const place = joinRaw(root, path);
  try {
    if (fs.lstatSync(place, { throwIfNoEntry: false }) === undefined) return false;
    const parent = place.subarray(0, place.lastIndexOf(0x2f));
    // If a link lies in a folder's place, the path may lead to another entry of that name.
    return fs.realpathSync.native(parent, "buffer").equals(parent);
  } catch {
    // No entry has a path that is longer than the system's limit.
    return false;
  }
}
