import { lstatSync, readlinkSync, renameSync, rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { holderOf, removeHeldTree } from "../engines/tree/remove-held.ts";
import { type CairnError, toCairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { fsyncDirectory } from "../fs/durable.ts";
import { exchangePlaces } from "../fs/exchange-folders.ts";
import { pointDirectoryName } from "./control-layout.ts";
import { isMisread, MISREAD_TREE, noteReading } from "./misread-tree.ts";
import { isSealedInPart, type Point } from "./point-files.ts";
import type { Points } from "./points.ts";

/**
 * Trees that several points hold, since nothing was changed between them. A tree lies with the first of them; the
 * others' descriptors say with whom. A link in its place marks them, so that their descriptors need not be read to know
 * that they hold one, and shows it to people; where it leads to is never followed.
 */

/** What is handed over has this name until it has its place; then the link that it takes the place of. */
const COMING = "tree-coming";
const LINK = /^\.\.\/(\d{10,})\/tree$/;

type Held = Pick<Point, "sequence" | "descriptor">;

/** The number of the point that a point's tree lies with, its own mostly. */
export function treeOwner(points: Points, { sequence, descriptor }: Held): number {
  const owner = descriptor.content.held?.tree_of;
  return owner === undefined || kindOf(points.pathsOf(sequence).tree) === "folder" ? sequence : owner;
}

/** Where the tree of a point lies, or would. */
export function treePlace(points: Points, point: Held): string {
  return points.pathsOf(treeOwner(points, point)).tree;
}

/** The same by what lies in the point's folder: null where it holds none, its own number where that cannot be told. */
export function markedOwner(points: Points, sequence: number): number | null {
  const { tree } = points.pathsOf(sequence);
  const kind = kindOf(tree);
  if (kind !== "link") return kind === null ? null : sequence;
  const owner = ownerByLink(tree);
  if (owner !== null) return owner;
  const point = points.readOrNull(sequence);
  return point === null ? sequence : treeOwner(points, point);
}

/** Null where the link is not what was made here. */
function ownerByLink(link: string): number | null {
  const owner = LINK.exec(readlinkSync(link))?.[1];
  return owner === undefined ? null : Number(owner);
}

function kindOf(place: string): "folder" | "link" | "other" | null {
  const stats = lstatSync(place, { throwIfNoEntry: false });
  if (stats === undefined) return null;
  return stats.isSymbolicLink() ? "link" : stats.isDirectory() ? "folder" : "other";
}

/** Marks a claim as that of a point that holds another's tree. Not durable by itself. */
export function markShared(points: Points, sequence: number, owner: number): void {
  const { tree } = points.pathsOf(sequence);
  try {
    symlinkSync(join("..", pointDirectoryName(owner), "tree"), tree);
  } catch (error) {
    throw toCairnError(error, `make ${tree}`);
  }
}

/** The number of the point whose tree alone has some of the content of this one; null where its seal has all, or it holds no tree. */
export function neededOwner(points: Points, sequence: number): number | null {
  const marked = markedOwner(points, sequence);
  if (kindOf(points.pathsOf(sequence).seal) !== null)
    return marked === null || isSealedWhole(points, sequence) ? null : marked;
  if (marked !== null) return marked;
  // Whatever became of the mark.
  const point = points.readOrNull(sequence);
  return point?.descriptor.content.held?.tree_of ?? null;
}

/** False too where that cannot be told: then the tree may be what gives the point back. */
function isSealedWhole(points: Points, sequence: number): boolean {
  try {
    const point = points.read(sequence);
    return point.sealed && !isSealedInPart(point);
  } catch {
    return false;
  }
}

/** Whether a tree lies with a point. */
export function hasOwnTree(points: Points, sequence: number): boolean {
  return kindOf(points.pathsOf(sequence).tree) === "folder";
}

export interface HandedOver {
  /** numbers of points that have to stay, since what needs their tree could not get one of its own */
  stay: Set<number>;
  /** why; null where none has to */
  problem: CairnError | null;
}

/**
 * Before the trees of some points go: whoever else needs one of them gets a copy, which shares its content with it. These
 * are all that nothing else has all of the content of, and the newest of each, to which going back stays fast. Durable when it
 * returns; again after a kill. For the holder of the workspace's lock.
 */
export async function handOverTrees(
  points: Points,
  leaving: readonly number[],
  onWarning?: (message: string) => void,
): Promise<HandedOver> {
  const done: HandedOver = { stay: new Set(), problem: null };
  const gone = new Set(leaving.filter((sequence) => hasOwnTree(points, sequence)));
  const served = new Set<number>();
  for (const sequence of gone.size === 0 ? [] : points.sequences().toReversed()) {
    const { root, tree } = points.pathsOf(sequence);
    // What stays of it costs room only.
    await removeComing(root).catch(() => undefined);
    if (leaving.includes(sequence)) continue;
    const { owner, isWhole, problem: unknown = null } = sharerOf(points, sequence);
    if (unknown !== null) {
      for (const each of gone) done.stay.add(each);
      done.problem ??= unknown;
    }
    if (owner === null || !gone.has(owner)) continue;
    const kind = kindOf(tree);
    if (kind === "folder") served.add(owner);
    else if (isWhole && (served.has(owner) || kind === null)) rmSync(tree, { force: true });
    else {
      const problem = await handOver(points, { from: owner, to: sequence });
      served.add(owner);
      if (problem === null) continue;
      onWarning?.(`${points.pathsOf(owner).tree} cannot be handed over: ${problem.message}`);
      if (isWhole) {
        rmSync(tree, { force: true });
        continue;
      }
      done.stay.add(owner);
      done.problem ??= problem;
    }
  }
  return done;
}

/**
 * With whom the tree of a point lies, null where not with another, and whether its seal has all that it holds; a problem
 * where that cannot be told for now.
 */
function sharerOf(points: Points, sequence: number): { owner: number | null; isWhole: boolean; problem?: CairnError } {
  try {
    const point = points.read(sequence);
    const isWhole = point.sealed && !isSealedInPart(point);
    return { owner: point.made.content.held?.tree_of ?? null, isWhole };
  } catch (error) {
    const problem = toCairnError(error);
    const { tree } = points.pathsOf(sequence);
    const kind = kindOf(tree);
    const owner = kind === "link" ? ownerByLink(tree) : null;
    const isKnown = owner !== null || kind === "folder" || problem.code === "damaged" || problem.code === "not_found";
    return { owner, isWhole: false, ...(isKnown ? {} : { problem }) };
  }
}

/** What a kill has left of a hand-over: a copy, or the link in whose place it lies. */
async function removeComing(root: string): Promise<void> {
  const coming = join(root, COMING);
  if (kindOf(coming) === "link") rmSync(coming);
  else await removeHeldTree(coming);
}

async function handOver(points: Points, { from, to }: { from: number; to: number }): Promise<CairnError | null> {
  const place = points.pathsOf(from).tree;
  const { root, tree } = points.pathsOf(to);
  const coming = join(root, COMING);
  try {
    await removeComing(root);
    await holderOf(place).capture(Buffer.from(place), coming, {});
    // A copy of what reads back otherwise does too.
    if (isMisread(points, from)) noteReading(points, to, [{ kind: MISREAD_TREE, detail: `as ${place}` }]);
    failpoint("shared-tree.copied");
    if (kindOf(tree) === null) renameSync(coming, tree);
    else exchangePlaces(Buffer.from(tree), Buffer.from(coming));
    fsyncDirectory(root);
    failpoint("shared-tree.handed-over");
    rmSync(coming, { force: true });
    return null;
  } catch (error) {
    await removeComing(root).catch(() => undefined);
    return toCairnError(error);
  }
}
