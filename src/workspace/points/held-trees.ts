import fs from "node:fs";
import path from "node:path";
import {
  CHANGED_TREE,
  changedSince,
  EMPTY_PLACE,
  identityOfAgain,
  madeAgainAt,
  type Making,
  recordedIdentity,
  whyNotAsMade,
  WRITABLE_TREE,
} from "../../clones/as-made.ts";
import { type HeldTree, latestChange } from "../../archive/write/held-files.ts";
import { removeHeldTree } from "../../clones/remove-held.ts";
import { advice, CairnError, call, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { plural } from "../../formats/sizes.ts";
import { encodeVerification, type VerificationProblem } from "../../formats/records/control.ts";
import { KEPT_TREES } from "../../formats/records/policy.ts";
import { durableRemove, durableWrite, fsyncDirectory, temporaryName } from "../../fs/durable.ts";
import { type ControlPaths, newKeptPlace } from "../place/control-layout.ts";
import { isSealedInPart, type Point } from "./point-files.ts";
import type { Points } from "./points.ts";
import { readPolicy } from "../place/control-directory.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import { joinRaw, quotedPath } from "../../fs/paths/safe-path.ts";
import { loadOrigins } from "../../archive/cache/origins.ts";
import type { ScanResult } from "../../archive/scan/scan.ts";
import { rawPath } from "../../formats/records/record.ts";
import type { ScanRequest } from "../../archive/scan/task.ts";
import { newWorkDirectory } from "../../fs/work-directory.ts";

/**
 * Returns how many of the newest sealed points keep their clones, for fast restores: the number in the policy. Infinity
 * if the policy is unreadable, since a removed clone cannot come back.
 */
export function keptTrees(control: ControlPaths, onWarning?: (message: string) => void): number {
  try {
    return readPolicy(control).kept_trees ?? KEPT_TREES;
  } catch (error) {
    onWarning?.(`the policy cannot be read, so no clone is removed: ${toCairnError(error).message}`);
    return Infinity;
  }
}

/** Name of a tree while it is removed. A tree named `tree` is complete. */
const GOING = "tree-going";
/** Name of a tree while it is made again; a kill may leave it. */
const COMING = "tree-coming";
/**
 * Target of the link in a point's directory if the point shares another point's tree. Points without a change between
 * them share the first one's tree, and their descriptors name that point. The link itself is never followed.
 */
const SHARED = /^\.\.\/(\d{10,})\/tree$/;

/** The number of the point in whose directory a point's tree lies; mostly the point's own number. */
export function treeOwner(points: Points, { sequence, descriptor }: Pick<Point, "sequence" | "descriptor">): number {
  const owner = descriptor.content.held?.tree_of;
  const own = fs.lstatSync(points.pathsOf(sequence).tree, { throwIfNoEntry: false });
  return owner === undefined || own?.isDirectory() === true ? sequence : owner;
}

/** Returns the path of the point's tree, whether or not the tree exists. */
export function treePlace(points: Points, point: Pick<Point, "sequence" | "descriptor">): string {
  return points.pathsOf(treeOwner(points, point)).tree;
}

/** Like {@link treeOwner}, but first by the files in the directory, then by the descriptor. Null if a point has no tree. */
function ownerOfTree(points: Points, sequence: number): number | null {
  const { tree } = points.pathsOf(sequence);
  const stats = fs.lstatSync(tree, { throwIfNoEntry: false });
  if (stats?.isDirectory() === true) return sequence;
  const owner = stats?.isSymbolicLink() === true ? SHARED.exec(fs.readlinkSync(tree))?.[1] : undefined;
  if (owner !== undefined) return Number(owner);
  return points.readOrNull(sequence)?.made.content.held?.tree_of ?? (stats === undefined ? null : sequence);
}

/** False also if the point is unreadable: then its tree may be the only copy of its content. */
function isSealedWhole(points: Points, sequence: number): boolean {
  try {
    const point = points.read(sequence);
    return point.sealed && !isSealedInPart(point);
  } catch {
    return false;
  }
}

/**
 * Returns the remaining points that need the tree of a point in `leaving`, because only that tree has all of their
 * content. Each key is a remaining point, its value the leaving point, or null if the link to it is unreadable.
 */
export function needingTrees(points: Points, leaving: readonly number[]): Map<number, number | null> {
  const gone = new Set(leaving);
  const trees = new Set(leaving.filter((each) => fs.existsSync(points.pathsOf(each).tree)));
  const needing = new Map<number, number | null>();
  for (const sequence of trees.size === 0 ? [] : points.sequences()) {
    if (gone.has(sequence)) continue;
    try {
      const owner = ownerOfTree(points, sequence);
      if (owner !== null && trees.has(owner) && !isSealedWhole(points, sequence)) needing.set(sequence, owner);
    } catch {
      needing.set(sequence, null);
    }
  }
  return needing;
}

/**
 * Removes the held trees of points that will be removed or were never finished. If a tree cannot be removed, moves its
 * point aside with a warning and returns false. Throws `no_space`.
 */
export async function removeHeldTrees(
  points: Points,
  sequences: readonly number[],
  { control, onWarning }: { control: ControlPaths; onWarning?: ((message: string) => void) | undefined },
): Promise<boolean> {
  const stuck: number[] = [];
  const foreign = sequences.filter((each) => isForeign(points, each));
  let first: CairnError | undefined;
  for (const sequence of sequences.filter((each) => !foreign.includes(each))) {
    try {
      await removeTreeOf(points, sequence);
    } catch (error) {
      const problem = toCairnError(error);
      if (problem.code === "no_space") throw problem;
      stuck.push(sequence);
      first ??= problem;
    }
  }
  if (foreign.length > 0) {
    const kept = points.moveAside(foreign, newKeptPlace(control, "cleanup"));
    onWarning?.(
      `the clone of ${plural(foreign.length, "point")} was missing; a folder that Cairn did not make was in its place, and was moved to ${kept}; remove it if you do not need it`,
    );
  }
  if (first === undefined) return true;
  const aside = points.moveAside(stuck, newWorkDirectory(control.temporary));
  onWarning?.(whyLeft(aside, first));
  return false;
}

/** Removes the held trees of wholly sealed points that stay. Returns paths of foreign folders in their place, which stay. */
export async function removeSpareTrees(points: Points, sequences: readonly number[]): Promise<string[]> {
  const foreign = sequences.filter((each) => isForeign(points, each));
  for (const sequence of sequences) if (!foreign.includes(sequence)) await removeTreeOf(points, sequence);
  return foreign.map((each) => points.pathsOf(each).tree);
}

/**
 * Replaces a sealed point's tree with a new one, which `make` makes at the path that it gets. A kill leaves the point
 * without a tree, which a sealed point does not need, or an unfinished tree for the next removal of old trees.
 */
export async function replaceTree(
  points: Points,
  sequence: number,
  make: (place: string) => Promise<unknown>,
): Promise<void> {
  await removeTreeOf(points, sequence);
  const { root, tree, treeIdentity } = points.pathsOf(sequence);
  const coming = path.join(root, COMING);
  await make(coming);
  failpoint("held-tree.coming");
  const identify = (place: string): void => {
    // After a kill the next holder of the workspace's lock removes this link.
    const staged = path.join(root, "../..", temporaryName());
    fs.symlinkSync(identityOfAgain(place), staged);
    fs.renameSync(staged, treeIdentity);
    failpoint("held-tree.identified");
  };
  identify(coming);
  fs.renameSync(coming, tree);
  // The rename counts as a change of the tree.
  identify(tree);
  fsyncDirectory(root);
  failpoint("held-tree.replaced");
}

async function removeTreeOf(points: Points, sequence: number): Promise<void> {
  const { root, tree, treeIdentity, origins } = points.pathsOf(sequence);
  const going = path.join(root, GOING);
  fs.rmSync(origins, { force: true });
  await removeLeftTrees(root);
  const stats = fs.lstatSync(tree, { throwIfNoEntry: false });
  if (stats === undefined) return;
  try {
    if (stats.isSymbolicLink()) return fs.rmSync(tree);
    fs.renameSync(tree, going);
  } catch (error) {
    throw toCairnError(error, `remove ${tree}`);
  }
  failpoint("held-tree.going");
  await removeHeldTree(going);
  noteReading(points, sequence, []);
  fs.rmSync(treeIdentity, { force: true });
  failpoint("held-tree.gone");
}

async function removeLeftTrees(root: string): Promise<void> {
  for (const place of leftTreesIn(root)) {
    if (fs.lstatSync(place).isSymbolicLink()) fs.rmSync(place);
    else await removeHeldTree(place);
  }
}

function leftTreesIn(root: string): string[] {
  return [GOING, COMING]
    .map((name) => path.join(root, name))
    .filter((place) => fs.lstatSync(place, { throwIfNoEntry: false }) !== undefined);
}

interface DropOptions {
  /** Number of the newest sealed points whose trees stay; see {@link keptTrees}. */
  keep: number;
  /** The most trees to remove, so that a call that sealed one point does not wait for the removal of many trees. */
  most?: number;
  /** Stops after this many points in a row without a tree. */
  lookBack?: number;
  onWarning?: ((message: string) => void) | undefined;
}

/**
 * Removes the held trees of sealed points except the newest, and leftovers of earlier removals. A tree that cannot be
 * removed only costs room. The caller holds the workspace's lock.
 */
export async function dropOldTrees(points: Points, options: DropOptions): Promise<void> {
  const { keep, most = Infinity, lookBack = Infinity, onWarning } = options;
  const kept = new Set<number>();
  let left = keep;
  let empty = 0;
  let removed = 0;
  for (const sequence of points.sequences().toReversed()) {
    const { root, tree, seal } = points.pathsOf(sequence);
    const isSealed = fs.existsSync(seal);
    const isThere = fs.lstatSync(tree, { throwIfNoEntry: false }) !== undefined;
    const owner = isThere || !isSealed ? ownerOfTree(points, sequence) : null;
    const going = leftTreesIn(root);
    let isSpare = false;
    if (owner !== null && !kept.has(owner)) {
      if (left > 0 && isSealed && fs.existsSync(tree)) {
        left--;
        kept.add(owner);
      } else if (isSealedWhole(points, sequence)) isSpare = !isForeign(points, sequence);
      else kept.add(owner);
    }
    empty = owner !== null || going.length > 0 ? 0 : empty + 1;
    if (isSpare || going.length > 0) {
      try {
        if (isSpare) await removeTreeOf(points, sequence);
        else await removeLeftTrees(root);
        removed++;
      } catch (error) {
        // An earlier call has warned of a tree that it could not remove, and `doctor` lists the tree.
        if (going.length === 0) onWarning?.(whyLeft(path.join(root, GOING), toCairnError(error)));
      }
    }
    if (removed >= most || empty >= lookBack) return;
  }
}

/** Lists the remains of trees whose removal was interrupted or failed. */
export function leftTrees(points: Points): string[] {
  return points.sequences().flatMap((sequence) => leftTreesIn(points.pathsOf(sequence).root));
}

/** Returns the reason why a point cannot be sealed from its held tree; null if it can be. */
export function heldTreeProblem(points: Points, point: Point): CairnError | null {
  const { descriptor } = point;
  const tree = treePlace(points, point);
  const who = `the point ${descriptor.save_point_id}`;
  if (fs.lstatSync(tree, { throwIfNoEntry: false }) === undefined) {
    const others = treeOwner(points, point) === point.sequence ? "" : " and of other points";
    const short = descriptor.save_point_id.slice(0, 8);
    return new CairnError("damaged", `${tree}: the clone of ${who}${others} is missing`, {
      hint: advice`the content was only in this clone, so it is lost. To remove the point, run ${call("save")} (head cannot be removed), then ${call(`cleanup drop ${short}`, "previewCleanup", { only: [short] })}`,
    });
  }
  const reason = whyChanged(points, point);
  return reason === null ? null : changedTree(tree, who, reason);
}

/** Tells whether a point's tree exists and has content that the point's seal lacks. */
export function holdsMore(points: Points, point: Point): boolean {
  return isSealedInPart(point) && heldTreeProblem(points, point) === null;
}

/** Returns why a copy of the held tree would not be a copy of the point, ignore rules apart; null if it would be. */
export function whyTreeIsNotThePoint(points: Points, point: Point): string | null {
  const why = whyTreeDiffers(points, point);
  const isRotten = why === null && isMisread(points, treeOwner(points, point));
  return isRotten ? "a verification found that its clone differs from the point" : why;
}

/** Like {@link whyTreeIsNotThePoint}, but without the result of a verification that read the tree. */
export function whyTreeDiffers(points: Points, point: Point): string | null {
  const { made } = point;
  if (fs.lstatSync(treePlace(points, point), { throwIfNoEntry: false }) === undefined) return "the point has no clone";
  // The tree has entries that the seal lacks.
  if (!made.complete || made.omitted_count > 0) return "the point left entries out";
  if (point.descriptor.labels.some(({ recovered }) => recovered === true))
    return "the point has a database as SQLite recovered it, and the clone has it unrecovered";
  const changed = whyChanged(points, point);
  return changed === null ? null : `the clone ${changed}`;
}

function whyChanged(points: Points, point: Point): string | null {
  const { effective_engine: engine, content } = point.descriptor;
  const owner = treeOwner(points, point);
  const isCopy = owner === point.sequence && content.held?.tree_of !== undefined;
  const { tree, treeIdentity } = points.pathsOf(owner);
  const lastChange = madeAgainAt(treeIdentity) === null ? content.held?.last_change : undefined;
  const making = { ...makingOf(points, owner, isCopy), last_change: lastChange };
  return whyNotAsMade(tree, engine, making) ?? (isAsMade(points, point, Buffer.from(tree)) ? null : CHANGED_TREE);
}

/**
 * Returns the recorded identity of the tree in a point's directory, and the span in which it was made. Earlier builds
 * recorded no identity: they made the tree between the claim and the descriptor; `isCopy`: later, from a shared tree.
 */
function makingOf(points: Points, owner: number, isCopy: boolean): Pick<Making, "identity" | "between"> {
  const { root, descriptor, treeIdentity } = points.pathsOf(owner);
  const described = isCopy ? undefined : fs.lstatSync(descriptor, { throwIfNoEntry: false });
  const between = [fs.lstatSync(root).birthtimeMs, described?.ctimeMs ?? Date.now()] as const;
  return { identity: recordedIdentity(treeIdentity), between };
}

/** Tells whether a folder that Cairn did not make lies in the place of a point's tree. */
function isForeign(points: Points, sequence: number): boolean {
  const facts = fs.lstatSync(points.pathsOf(sequence).tree, { throwIfNoEntry: false });
  const point = facts?.isDirectory() === true ? points.readOrNull(sequence) : null;
  const why = point === null ? null : whyChanged(points, point);
  return why !== null && ![EMPTY_PLACE, CHANGED_TREE, WRITABLE_TREE].includes(why);
}

/** A point's held tree, whose files may be cloned; null if it has none, or the tree differs from the point. */
export function heldTreeOf(points: Points, point: Point): HeldTree | null {
  if (whyTreeIsNotThePoint(points, point) !== null) return null;
  return { place: treePlace(points, point), made: madeAt(points, point) };
}

/**
 * Tells if an entry of a point's tree is unchanged since the tree was made. A btrfs snapshot is checked as a whole; in
 * other clones the inode's change time tells.
 */
export function isAsMade(points: Points, point: Point, place: Buffer): boolean {
  const facts = fs.lstatSync(place, { throwIfNoEntry: false });
  if (facts === undefined || point.descriptor.effective_engine === "btrfs-snapshot") return facts !== undefined;
  return facts.ctimeMs <= latestChange(madeAt(points, point));
}

/** Time at which the tree of a point was complete, in ms since 1970. */
function madeAt(points: Points, point: Point): number {
  const { treeIdentity } = points.pathsOf(treeOwner(points, point));
  return madeAgainAt(treeIdentity) ?? Date.parse(point.descriptor.created_at);
}

/** The error for a changed tree. Sealing such a tree would give the point content that it never had. */
function changedTree(tree: string, who: string, reason: string): CairnError {
  const hint =
    HINTS[reason] ??
    "move the folder at this path away, then move the clone that Cairn made back here: only the clone has the content of the point, which is damaged until then";
  return new CairnError("damaged", `${tree}: the clone of ${who} ${reason}`, { hint });
}

const HINTS: Readonly<Record<string, string>> = {
  [EMPTY_PLACE]:
    "move the btrfs snapshot back here from its old place: a copy within one file system, or a snapshot of a folder above, does not include it",
  [CHANGED_TREE]:
    "copy the files that you need out of that folder, then remove the point: Cairn can no longer prove the saved state",
  [WRITABLE_TREE]:
    "if nothing was written to it, make it read-only, and the point is valid again: btrfs property set -ts TREE ro true",
};

/** Kind of a verification's problem: the held tree of a sealed point differs from the point when it is read. */
export const MISREAD_TREE = "held_tree";

/** Path of the note beside a tree. It also counts for points that share the tree. */
function noteOf(points: Points, owner: number): string {
  return path.join(points.pathsOf(owner).root, "tree-verification.json");
}

/** Tells whether a verification found this point's tree to differ from the point. Restores then read the store. */
function isMisread(points: Points, owner: number): boolean {
  return fs.existsSync(noteOf(points, owner));
}

/** Keeps the problems that a verification found in a tree. An empty list removes the earlier note. */
export function noteReading(points: Points, owner: number, problems: VerificationProblem[]): void {
  const note = noteOf(points, owner);
  const record = { at: new Date().toISOString(), ok: false, problems };
  if (problems.length > 0) durableWrite(note, encodeVerification(record));
  else if (fs.existsSync(note)) durableRemove(note);
}

/** Tells whether this user can read an entry that the point's seal lacks. */
export function canReadMore(points: Points, point: Point): boolean {
  if (!holdsMore(points, point)) return false;
  const tree = Buffer.from(treePlace(points, point));
  return point.descriptor.omitted.some((each) => canBeRead(joinRaw(tree, rawPath(each))));
}

/** Tries to open the file, since the system may grant more than the modes say. */
function canBeRead(place: Buffer): boolean {
  try {
    fs.closeSync(fs.openSync(place, fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK));
    return true;
  } catch {
    return false;
  }
}

/**
 * Returns when a tree was held, for the scan that seals it. The kernel writes mapped pages back before it makes a
 * snapshot or clone, so later writes change the file's times. In a reflink copy the inodes are new and stand for those
 * of the sources.
 */
export function heldAt(points: Points, { descriptor, sequence }: Point): Pick<ScanRequest, "heldAt" | "clonedFrom"> {
  const { held } = descriptor.content;
  if (held === undefined) return {};
  const at = Date.parse(held.at);
  if (held.engine === "btrfs-snapshot") return { heldAt: at };
  const origins = held.engine === "reflink-copy" ? loadOrigins(points.pathsOf(sequence).origins) : null;
  if (origins === null) return {};
  return { heldAt: at, clonedFrom: { ...origins, until: latestChange(Date.parse(descriptor.created_at)) } };
}

/** Throws `damaged` if the tree that was just read was changed since it was made. */
export function requireAsMade(points: Points, point: Point, { scan }: { scan: ScanResult }): void {
  const problem = heldTreeProblem(points, point);
  if (problem !== null) throw problem;
  const { descriptor } = point;
  const tree = treePlace(points, point);
  // A clone's inodes are as old as the clone, so a later change shows in each inode. A btrfs snapshot is checked as a
  // whole.
  if (descriptor.effective_engine === "btrfs-snapshot") return;
  const changed = changedSince(scan, tree, Date.parse(descriptor.created_at));
  if (changed !== null) {
    const who = `the point ${descriptor.save_point_id}`;
    throw new CairnError("damaged", `${tree}: the clone of ${who} ${CHANGED_TREE}: ${changed}`, {
      hint: HINTS[CHANGED_TREE]!,
    });
  }
}

/** Most trees that wait to be removed; each of them takes room. */
const MOST = 4;

/** Moves `place` into a folder beside it, named after this process. A later process removes it. Returns the new path. */
function moveAside(place: string): string {
  const aside = newWorkDirectory(path.dirname(place));
  makeFolder(aside);
  const doomed = path.join(aside, path.basename(place));
  try {
    fs.renameSync(place, doomed);
  } catch (error) {
    fs.rmdirSync(aside);
    throw error;
  }
  return doomed;
}

function asideOrThere(place: string): string {
  try {
    return moveAside(place);
  } catch {
    return place;
  }
}

/** Warns of a leftover tree and names the command that removes it. */
export function whyLeft(place: string, { code, message, hint }: CairnError): string {
  // `rm -rf` would also empty the mounts inside.
  const how = code === "refused" && hint !== undefined ? hint : `to remove it: sudo rm -rf ${quotedPath(place)}`;
  return `${place} could not be removed: ${message}; no point needs it any more; ${how}`;
}

/**
 * Removes unneeded trees in the background: 100 000 entries take 0.4 s, since the system drops each cached entry first.
 * Meanwhile the tree lies in a folder named after this process, which a later process removes after a kill.
 */
export class Removals {
  readonly #remove: (place: string) => Promise<void>;
  readonly #pending = new Set<Promise<void>>();

  constructor(remove: (place: string) => Promise<void> = removeHeldTree) {
    this.#remove = remove;
  }

  /**
   * Takes over the removal of `place`; waits if too many removals run. Calls `onWarning`, perhaps later, if the removal
   * fails. If `place` cannot be moved aside, as on a full disk, removes it at once.
   */
  async add(place: string, onWarning: ((message: string) => void) | undefined): Promise<void> {
    while (this.#pending.size >= MOST) await Promise.race(this.#pending);
    let doomed: string;
    try {
      doomed = moveAside(place);
    } catch {
      return this.now(place, onWarning);
    }
    const removal = this.#removed(doomed)
      .catch((error: unknown) => onWarning?.(whyLeft(doomed, toCairnError(error))))
      .finally(() => this.#pending.delete(removal));
    this.#pending.add(removal);
  }

  /** Removes `place` at once. If that fails, moves it aside with a warning. Throws `no_space`: callers may drop caches. */
  async now(place: string, onWarning: ((message: string) => void) | undefined): Promise<void> {
    try {
      await this.#remove(place);
    } catch (error) {
      const problem = toCairnError(error);
      if (problem.code === "no_space") throw problem;
      const left = asideOrThere(place);
      onWarning?.(whyLeft(left, problem));
    }
  }

  async #removed(doomed: string): Promise<void> {
    await this.#remove(doomed);
    // rmdir waits until the file system has finished the removal.
    await fs.promises.rmdir(path.dirname(doomed));
  }

  /** Resolves when no removal runs. */
  async settled(): Promise<void> {
    while (this.#pending.size > 0) await Promise.all(this.#pending);
  }
}
