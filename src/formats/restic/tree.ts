import { ByteWriter } from "../bytes.ts";
import { decodeUsualTree } from "./tree-decode.ts";
import { decodeGeneralTree } from "./tree-general.ts";
import { appendNode, beginTree, endTree } from "./tree-encode.ts";
import type { TreeNode } from "./tree-node.ts";

export { appendNode, beginTree, endTree } from "./tree-encode.ts";
export { canBeOne, goModeOf, isEntryName, linkedInode, nodeTypeOf, unixModeOf } from "./tree-node.ts";
export type { ForeignNode, NodeAttribute, NodeMetadata, NodeType, TreeNode } from "./tree-node.ts";

/**
 * The nodes of a restic tree blob, sorted by raw name, whoever wrote it. They own their bytes.
 * Throws `damaged` for what is no tree, a name that no directory can hold, or a name that occurs twice.
 */
export function decodeTree(bytes: Uint8Array): TreeNode[] {
  return decodeUsualTree(bytes) ?? decodeGeneralTree(bytes);
}

/** The bytes of a tree of these nodes, which come sorted by raw name. For the few trees of which that is all there is. */
export function encodeTree(nodes: Iterable<TreeNode>): Uint8Array {
  const w = new ByteWriter();
  beginTree(w);
  for (const node of nodes) appendNode(w, node);
  endTree(w);
  return w.copy();
}
