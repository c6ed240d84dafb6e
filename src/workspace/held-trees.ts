import { existsSync, lstatSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { EMPTY_PLACE, whyNotAsMade } from "../engines/tree/as-made.ts";
import type { HeldTree } from "../engines/tree/held-files.ts";
import { removeHeldTree } from "../engines/tree/remove-held.ts";
import { CairnError, toCairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { KEPT_TREES } from "../formats/policy.ts";
import type { ControlPaths } from "./control-layout.ts";
import { isMisread, noteReading } from "./misread-tree.ts";
import { isSealedInPart, type Point } from "./point-files.ts";
import type { Points } from "./points.ts";
import { readPolicy } from "./policy.ts";
import { whyLeft } from "./removals.ts";
import { hasOwnTree, markedOwner, neededOwner, treeOwner, treePlace } from "./shared-trees.ts";

/**
 * Points whose seals have all of them do not need their held trees; those of so many of the newest stay, as the policy
 * says, since they make going back fast. All stay where it cannot be read: none that was removed comes back.
 */
export function keptTrees(control: ControlPaths, onWarning?: (message: string) => void): number {
  try {
    return readPolicy(control).kept_trees ?? KEPT_TREES;
  } catch (error) {
    onWarning?.(`the policy cannot be read, so every held tree stays: ${toCairnError(error).message}`);
    return Infinity;
  }
}

/** What is being removed has this name: under its own a tree is whole, however long its removal takes. */
const GOING = "tree-going";

/**
 * Removes the held trees of points that are about to go, or that were never finished. What others need is handed over
 * before. A point of whose tree something cannot be removed goes aside with that, which is told of: it hinders nobody
 * there, and false is returned. Throws `no_space`.
 */
export async function removeHeldTrees(
  points: Points,
  sequences: readonly number[],
  { temporary, onWarning }: { temporary: string; onWarning?: ((message: string) => void) | undefined },
): Promise<boolean> {
  const stuck: number[] = [];
  let first: CairnError | undefined;
  for (const sequence of sequences) {
    try {
      await removeTreeOf(points, sequence);
    } catch (error) {
      const problem = toCairnError(error);
      if (problem.code === "no_space") throw problem;
      stuck.push(sequence);
      first ??= problem;
    }
  }
  if (first === undefined) return true;
  const aside = points.moveAside(stuck, temporary);
  onWarning?.(whyLeft(aside, first));
  return false;
}

async function removeTreeOf(points: Points, sequence: number): Promise<void> {
  const { root, tree, origins } = points.pathsOf(sequence);
  const going = join(root, GOING);
  rmSync(origins, { force: true });
  await removeHeldTree(going);
  const stats = lstatSync(tree, { throwIfNoEntry: false });
  if (stats === undefined) return;
  try {
    if (stats.isSymbolicLink()) return rmSync(tree);
    renameSync(tree, going);
  } catch (error) {
    throw toCairnError(error, `remove ${tree}`);
  }
  failpoint("held-tree.going");
  await removeHeldTree(going);
  noteReading(points, sequence, []);
  failpoint("held-tree.gone");
}

export interface DropOptions {
  /** Of so many of the newest sealed points the trees stay; see {@link keptTrees}. */
  keep: number;
  /** Only trees of points up to this number; no newer one may be sealed then. */
  newest?: number;
  /** No more than so many, so that whoever sealed one point does not wait for the trees of many. */
  most?: number;
  /** Gives up looking after so many points in a row that hold nothing. */
  lookBack?: number;
  /** Whether a newer point needs the tree that lies with the point of that number. */
  isNeeded?: (owner: number) => boolean;
  onWarning?: ((message: string) => void) | undefined;
}

/**
 * Removes the held trees that no point needs any more but for the newest ones, and what an earlier removal left. What
 * cannot be removed stays: it costs room only. For the holder of the workspace's lock.
 */
export async function dropOldTrees(points: Points, options: DropOptions): Promise<void> {
  const { keep, newest = Infinity, most = Infinity, lookBack = Infinity, isNeeded, onWarning } = options;
  const kept = new Set<number>();
  let left = keep;
  let empty = 0;
  let removed = 0;
  for (const sequence of points.sequences().toReversed()) {
    if (sequence > newest) continue;
    const { root, seal } = points.pathsOf(sequence);
    const going = join(root, GOING);
    const isGoing = existsSync(going);
    const owner = markedOwner(points, sequence);
    if (owner !== null && isNewest(owner, seal)) kept.add(owner);
    // Whether a sealed point needs it is read in its files: not for what stays already.
    const needed = owner !== null && kept.has(owner) ? owner : neededOwner(points, sequence);
    if (needed !== null) kept.add(needed);
    const isSpare = owner !== null && !kept.has(owner) && isNeeded?.(owner) !== true;
    empty = owner !== null || isGoing ? 0 : empty + 1;
    if (isSpare || isGoing) {
      try {
        if (isSpare) await removeTreeOf(points, sequence);
        else await removeHeldTree(going);
        removed++;
      } catch (error) {
        // Of what an earlier call could not remove that one has told, and `doctor` does.
        if (!isGoing) onWarning?.(whyLeft(going, toCairnError(error)));
      }
    }
    if (removed >= most || empty >= lookBack) return;
  }

  /** Of the newest that are sealed; what is needed whatever their number, or leads to a tree that is gone, counts for nothing. */
  function isNewest(owner: number, seal: string): boolean {
    if (left === 0 || kept.has(owner) || isNeeded?.(owner) === true) return false;
    if (!existsSync(seal) || !hasOwnTree(points, owner)) return false;
    left--;
    return true;
  }
}

/** What is left of trees whose removal was interrupted, or could not be done. */
export function leftTrees(points: Points): string[] {
  return points
    .sequences()
    .map((sequence) => join(points.pathsOf(sequence).root, GOING))
    .filter((going) => existsSync(going));
}

/** Why a point that is not sealed cannot be sealed from its held tree; null where nothing speaks against it. */
export function heldTreeProblem(points: Points, point: Point): CairnError | null {
  const { descriptor } = point;
  const tree = treePlace(points, point);
  const who = `the point ${descriptor.save_point_id}`;
  if (lstatSync(tree, { throwIfNoEntry: false }) === undefined) {
    const others = treeOwner(points, point) === point.sequence ? "" : " together with others";
    return new CairnError("damaged", `${tree}: the tree that ${who} held${others} is gone`, {
      hint: `it was never sealed, so nothing else has its content: remove the point with \`cairn cleanup --only ${descriptor.save_point_id.slice(0, 8)}\``,
    });
  }
  const reason = whyChanged(tree, point);
  return reason === null ? null : changedTree(tree, who, reason);
}

/** Whether a point's tree is there and has what its seal lacks. */
export function holdsMore(points: Points, point: Point): boolean {
  return isSealedInPart(point) && heldTreeProblem(points, point) === null;
}

/**
 * Why the held tree of a point is not, entry for entry, what the point holds, so that a copy of the tree would not be
 * a copy of the point; null where it is. Ignore rules are not looked at.
 */
export function whyTreeIsNotThePoint(points: Points, point: Point): string | null {
  const why = whyTreeDiffers(points, point);
  const isRotten = why === null && isMisread(points, treeOwner(points, point));
  return isRotten ? "a verification found that its tree reads back otherwise" : why;
}

/** The same without what a verification found by reading the tree. */
export function whyTreeDiffers(points: Points, point: Point): string | null {
  const { made } = point;
  const tree = treePlace(points, point);
  if (lstatSync(tree, { throwIfNoEntry: false }) === undefined) return "the point holds no tree";
  // What its seal lacks is in the tree.
  if (!made.complete || made.omitted_count > 0) return "the point left something out";
  const changed = whyChanged(tree, point);
  return changed === null ? null : `the tree ${changed}`;
}

function whyChanged(tree: string, { descriptor }: Point): string | null {
  return whyNotAsMade(tree, descriptor.effective_engine, descriptor.content.held);
}

/** A point's held tree, whose files may be cloned; null where it has none that is the point. */
export function heldTreeOf(points: Points, point: Point): HeldTree | null {
  if (whyTreeIsNotThePoint(points, point) !== null) return null;
  return { place: treePlace(points, point), made: Date.parse(point.descriptor.created_at) };
}

/** A tree that is not what was captured must not become what the point says was there. */
export function changedTree(tree: string, who: string, reason: string): CairnError {
  return new CairnError("damaged", `${tree}: the tree that ${who} held ${reason}`, {
    hint:
      reason === EMPTY_PLACE
        ? "copies that stay on one file system, and snapshots of what lies around it, leave a snapshot out: move it back here from where it still is"
        : "what was there at the save cannot be proven any more; copy what you need out of that folder, then remove the point",
  });
}
