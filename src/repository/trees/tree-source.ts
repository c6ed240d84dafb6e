import type { NodePair, TreeNode, TreeNodes } from "../../formats/restic/tree.ts";

/** A readable state of a folder: directories by reference, files by node. Synchronous, for one thread. */
export interface TreeSource {
  /** Reference (32 bytes) of the root directory. Equal references mean equal directories. */
  readonly root: Uint8Array;
  /** The entries of a directory in raw name order. */
  list(directory: Uint8Array): TreeNodes;
  /** Returns a directory as the bytes of its tree blob. Absent if the state is not made of tree blobs. */
  raw?(directory: Uint8Array): Uint8Array;
  /**
   * Returns the entries in which two directories differ, by name; null stands for a missing entry. Equal entries may be
   * among them. Undefined if nothing is cheaper than listing both.
   */
  differing?(other: TreeSource, own: Uint8Array, theirs: Uint8Array): Iterable<NodePair> | undefined;
  /**
   * Returns the bytes of a content blob from the index, without reading the blob. Undefined if the index has no size
   * for it.
   */
  sizeOf?(id: Uint8Array): number | undefined;
  /** Yields the content of a file node in order, in pieces that are valid until the next. */
  content(node: TreeNode): Iterable<Uint8Array>;
}

/** The most following trees that a walk announces to its reader. */
const TREES_AHEAD = 4096;

/**
 * Yields the entries of the trees that a walk will read next, from the end of its stack. Skips trees that the index
 * does not know.
 */
export function* treesAhead<T>(stack: readonly T[], entryOf: (step: T) => number): Generator<number> {
  const end = Math.max(0, stack.length - TREES_AHEAD);
  for (let at = stack.length - 1; at >= end; at--) {
    const entry = entryOf(stack[at]!);
    if (entry >= 0) yield entry;
  }
}
