import { ByteWriter, compareBytes } from "../bytes.ts";
import { TreeCursor } from "./tree-cursor.ts";
import { decodeGeneralTree } from "./tree-general.ts";
import { appendNode, beginTree, endTree } from "./tree-encode.ts";
import type { NodePair, TreeNode, TreeNodes } from "./tree-node.ts";

export { appendNode, beginTree, endTree } from "./tree-encode.ts";
export { canBeOne, goModeOf, isEntryName, linkedInode, nodeTypeOf, unixModeOf } from "./tree-node.ts";
export type { ForeignNode, NodeAttribute, NodeMetadata, NodePair, NodeType, TreeNode, TreeNodes } from "./tree-node.ts";

/** The most bytes of a tree whose nodes are all made at once. */
const SMALL = 256 * 1024;

/** Nodes that `read` makes one by one, by their position in the order of names. */
export class ReadNodes implements TreeNodes {
  readonly length: number;
  readonly #read: (index: number) => TreeNode;

  constructor(length: number, read: (index: number) => TreeNode) {
    this.length = length;
    this.#read = read;
  }

  at(index: number): TreeNode | undefined {
    return index < this.length ? this.#read(index) : undefined;
  }

  find(fits: (node: TreeNode) => boolean): TreeNode | undefined {
    for (const node of this) if (fits(node)) return node;
    return undefined;
  }

  *[Symbol.iterator](): Generator<TreeNode> {
    for (let i = 0; i < this.length; i++) yield this.#read(i);
  }
}

/**
 * Decodes a restic tree blob of any writer; nodes are sorted by raw name. Nodes own their bytes, but the bytes of a
 * large tree must stay unchanged while they are read. Throws `damaged` if it is no tree, or has an invalid or repeated
 * name.
 */
export function decodeTree(bytes: Uint8Array): TreeNodes {
  return decodeUsualTree(bytes) ?? decodeGeneralTree(bytes);
}

/** Decodes a tree in restic's own encoding. Returns null if the encoding is another. */
export function decodeUsualTree(bytes: Uint8Array): TreeNodes | null {
  const cursor = new TreeCursor();
  const nodes: TreeNode[] = [];
  const starts: number[] = [];
  cursor.open(bytes);
  while (cursor.next()) {
    if (bytes.length <= SMALL) nodes.push(cursor.node());
    else starts.push(cursor.entryStart);
  }
  if (!cursor.usual) return null;
  return bytes.length <= SMALL ? nodes : new ReadNodes(starts.length, (i) => cursor.read(starts[i]!));
}

/**
 * Returns the nodes of the entries that `wants` accepts, in order: most entries get no object. `wants` sees the cursor at
 * each entry. If the encoding is another, returns all nodes.
 */
export function someNodes(bytes: Uint8Array, wants: (entry: TreeCursor) => boolean): TreeNodes {
  const cursor = new TreeCursor();
  const nodes: TreeNode[] = [];
  cursor.open(bytes);
  while (cursor.next()) if (wants(cursor)) nodes.push(cursor.node());
  return cursor.usual ? nodes : decodeGeneralTree(bytes);
}

/** Returns the node with a raw name, by a binary search. */
export function nodeNamed(nodes: TreeNodes, name: Uint8Array): TreeNode | undefined {
  let [low, high] = [0, nodes.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    const node = nodes.at(middle)!;
    const order = compareBytes(node.name, name);
    if (order === 0) return node;
    if (order < 0) low = middle + 1;
    else high = middle;
  }
  return undefined;
}

/** Yields the nodes of two trees by name; null stands for a missing node. */
export function* pairsByName(before: TreeNodes, after: TreeNodes): Generator<NodePair> {
  let [i, j] = [0, 0];
  let [old, now] = [before.at(0), after.at(0)];
  while (old !== undefined || now !== undefined) {
    const order = old === undefined ? 1 : now === undefined ? -1 : compareBytes(old.name, now.name);
    yield { before: order <= 0 ? old! : null, after: order >= 0 ? now! : null };
    if (order <= 0) old = before.at(++i);
    if (order >= 0) now = after.at(++j);
  }
}

/** Encodes nodes, which are sorted by raw name. For trees that are small and rare. */
export function encodeTree(nodes: Iterable<TreeNode>): Uint8Array {
  const w = new ByteWriter();
  beginTree(w);
  for (const node of nodes) appendNode(w, node);
  endTree(w);
  return w.copy();
}
