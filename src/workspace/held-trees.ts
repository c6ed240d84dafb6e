import { existsSync } from "node:fs";
import { removeHeldTree } from "../engines/tree/remove-held.ts";
import type { Points } from "./points.ts";

/** Sealed points do not need their held trees; those of the newest make going back fast. */
const KEPT_TREES = 8;

/** Removes the held trees of points that are about to go, or that were never finished. */
export async function removeHeldTrees(points: Points, sequences: readonly number[]): Promise<void> {
  for (const sequence of sequences) await removeHeldTree(points.pathsOf(sequence).tree);
}

/** Removes the held trees of sealed points but for the newest ones. For the holder of the workspace's lock. */
export async function dropOldTrees(points: Points): Promise<void> {
  const held = points.sequences().filter((sequence) => {
    const { tree, seal } = points.pathsOf(sequence);
    return existsSync(tree) && existsSync(seal);
  });
  await removeHeldTrees(points, held.slice(0, -KEPT_TREES));
}
