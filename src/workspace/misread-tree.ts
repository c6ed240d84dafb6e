import type { Point } from "./point-files.ts";

/** The kind of a verification's problem: the tree that a sealed point holds reads back otherwise than the point has it. */
export const MISREAD_TREE = "held_tree";

/** Whether a verification found that; the point is given back from the store then. */
export function isMisread({ verification }: Point): boolean {
  return verification?.problems.some(({ kind }) => kind === MISREAD_TREE) === true;
}
