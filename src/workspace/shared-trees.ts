import { lstatSync, readlinkSync, rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { holderOf, removeHeldTree } from "../engines/tree/remove-held.ts";
import { toCairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { fsyncDirectory } from "../fs/durable.ts";
import { exchangePlaces } from "../fs/exchange-folders.ts";
import { pointDirectoryName } from "./control-layout.ts";
import type { Point } from "./point-files.ts";
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
  const owner = LINK.exec(readlinkSync(tree))?.[1];
  if (owner !== undefined) return Number(owner);
  try {
    return treeOwner(points, points.read(sequence));
  } catch {
    return sequence;
  }
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

/**
 * Before the trees of some points go: whoever else needs one of them gets a copy, which shares its content with it. These
 * are all that nothing else has the content of, and the newest of each, to which going back stays fast. Durable when it
 * returns; again after a kill. For the holder of the workspace's lock.
 */
export async function handOverTrees(points: Points, leaving: readonly number[]): Promise<void> {
  const gone = new Set(leaving);
  const served = new Set<number>();
  for (const sequence of points.sequences().toReversed()) {
    const { root, seal } = points.pathsOf(sequence);
    const coming = join(root, COMING);
    // One that was handed over before a kill.
    if (kindOf(coming) === "link") rmSync(coming);
    if (gone.has(sequence)) continue;
    const owner = markedOwner(points, sequence);
    if (owner === null || owner === sequence || !gone.has(owner)) continue;
    if (kindOf(points.pathsOf(owner).tree) !== "folder") continue;
    if (served.has(owner) && kindOf(seal) !== null) rmSync(points.pathsOf(sequence).tree);
    else await handOver(points, { from: owner, to: sequence });
    served.add(owner);
  }
}

async function handOver(points: Points, { from, to }: { from: number; to: number }): Promise<void> {
  const place = points.pathsOf(from).tree;
  const { root, tree } = points.pathsOf(to);
  const coming = join(root, COMING);
  await removeHeldTree(coming);
  await holderOf(place).capture(Buffer.from(place), coming, {});
  failpoint("shared-tree.copied");
  exchangePlaces(Buffer.from(tree), Buffer.from(coming));
  fsyncDirectory(root);
  failpoint("shared-tree.handed-over");
  rmSync(coming);
}
