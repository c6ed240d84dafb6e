import type { NodePair, TreeNode, TreeNodes } from "../../formats/restic/tree.ts";

/** A state, readable: directories by reference, files by node. Synchronous, for one thread. */
export interface TreeSource {
  /** Reference (32 bytes) of the root directory; equal references are equal directories. */
  readonly root: Uint8Array;
  /** The entries of a directory in raw name order. */
  list(directory: Uint8Array): TreeNodes;
  /** A directory as the bytes of a tree blob, where that is what holds it. */
  raw?(directory: Uint8Array): Uint8Array;
  /**
   * The entries by which a directory of this state differs from one of another, by name, each null where its state has
   * none; undefined where nothing cheaper than listing both is known. What is equal may be among them.
   */
  differing?(other: TreeSource, own: Uint8Array, theirs: Uint8Array): Iterable<NodePair> | undefined;
  /** Size in bytes of a content blob, from the index: the blob is not read. Undefined if the index has no size for it. */
  sizeOf?(id: Uint8Array): number | undefined;
  /** The content of a file node in order, in pieces that are valid until the next. */
  content(node: TreeNode): Iterable<Uint8Array>;
}
