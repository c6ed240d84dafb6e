import { advice, CairnError, call, toCairnError } from "../../errors.ts";
import { decodeTree, nodeNamed, someNodes, type TreeNode, type TreeNodes } from "../../formats/restic/tree.ts";
import { objectIdOf } from "../../ids.ts";
import type { BlobSource } from "../../repository/read/blob-source.ts";
import { blobTypeName, DATA_BLOB, TREE_BLOB } from "../../repository/index/blob-table.ts";
import { treesAhead } from "../../repository/trees/tree-source.ts";
import type { ListTree } from "../../repository/trees/walk-trees.ts";

/**
 * The nodes of a tree. Throws `damaged` if it is missing or its bytes are wrong. `stack`: trees to be read next, the
 * last one first; far trees are fetched with it.
 */
export async function readNodes(
  reader: BlobSource,
  tree: Uint8Array,
  stack: readonly Uint8Array[] = [],
): Promise<TreeNodes> {
  return decodeTree(await readBlob(reader, tree, TREE_BLOB, stack));
}

/** Reads the trees of a walk one by one. */
export function treesIn(reader: BlobSource): ListTree {
  return async (tree) => readNodes(reader, tree);
}

/** The node of a raw name in a tree; keeps nothing else of the tree. Throws as `readNodes` does. */
export async function nodeIn(reader: BlobSource, tree: Uint8Array, name: Uint8Array): Promise<TreeNode | undefined> {
  return nodeNamed(decodeTree(await viewed(reader, tree)), name);
}

/** Returns the node at a path of latin1 names below a tree; undefined if there is none. */
export async function nodeAt(
  reader: BlobSource,
  tree: Uint8Array,
  names: readonly string[],
): Promise<TreeNode | undefined> {
  let node: TreeNode | undefined;
  let folder: Uint8Array | undefined = tree;
  for (const name of names) {
    node = folder && (await nodeIn(reader, folder, Buffer.from(name, "latin1")));
    folder = node?.subtree;
  }
  return node;
}

/** Some nodes of a tree; see `someNodes`. Throws as `readNodes` does. */
export async function readSomeNodes(
  reader: BlobSource,
  tree: Uint8Array,
  wants: Parameters<typeof someNodes>[1],
): Promise<TreeNodes> {
  return someNodes(await viewed(reader, tree), wants);
}

/** A tree's plaintext in memory of its own. A far tree must have been fetched. Throws as `readNodes` does. */
export function treeHere(reader: BlobSource, tree: Uint8Array): Uint8Array {
  return reader.lent(tree) ?? reader.read(entryOf(reader, tree, TREE_BLOB));
}

async function viewed(reader: BlobSource, tree: Uint8Array): Promise<Uint8Array> {
  return reader.lent(tree) ?? (await reader.viewTree(entryOf(reader, tree, TREE_BLOB)));
}

/** The nodes of a tree; null if it is damaged. */
export async function nodesOrNull(reader: BlobSource, tree: Uint8Array): Promise<TreeNodes | null> {
  try {
    return await readNodes(reader, tree);
  } catch (error) {
    if (toCairnError(error).code === "damaged") return null;
    throw error;
  }
}

/** A blob's plaintext by its id. Throws `damaged` if the repository lacks it. `stack`: see `readNodes`. */
export async function readBlob(
  reader: BlobSource,
  id: Uint8Array,
  type: typeof DATA_BLOB | typeof TREE_BLOB,
  stack: readonly Uint8Array[] = [],
): Promise<Uint8Array> {
  const lent = type === TREE_BLOB ? reader.lent(id) : undefined;
  if (lent !== undefined) return lent;
  const entry = entryOf(reader, id, type);
  if (type === DATA_BLOB) return reader.readBlob(entry);
  return reader.readTree(entry, () => treesAhead(stack, (each) => reader.index.lookup(each, 0, TREE_BLOB)));
}

/** Returns the bytes of a file. Throws `damaged`, with `title`, if the file has more bytes than `most` or its size. */
export async function readFile(
  reader: BlobSource,
  { size, content = Buffer.alloc(0) }: TreeNode,
  { title, most }: { title: string; most: number },
): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  let left = size > most ? -1 : size;
  for (let at = 0; at < content.length && left >= 0; at += 32) {
    const part = await readBlob(reader, content.subarray(at, at + 32), DATA_BLOB);
    left -= part.length;
    parts.push(part);
  }
  if (left < 0) throw new CairnError("damaged", `${title} is longer than its size, or than ${most} bytes`);
  return Buffer.concat(parts);
}

function entryOf({ index }: BlobSource, id: Uint8Array, type: typeof DATA_BLOB | typeof TREE_BLOB): number {
  const entry = index.lookup(id, 0, type);
  if (entry >= 0) return entry;
  throw new CairnError("damaged", `the repository has no ${blobTypeName(type)} blob ${objectIdOf(id).slice(0, 12)}`, {
    hint: advice`${call("backup verify", "verify")} shows which files are lost`,
    details: { blob: objectIdOf(id) },
  });
}

/** Names, in latin1, of the folders that lead from the topmost tree of a snapshot of ours to the saved folder. */
export async function leadTo(reader: BlobSource, top: Uint8Array, [path = ""]: readonly string[]): Promise<string[]> {
  const names: string[] = [];
  let tree = top;
  for (let left = path.split("/").filter((part) => part !== "").length; left > 0; left--) {
    const nodes = [...(await readNodes(reader, tree))];
    const node = nodes.find((each) => names.length > 0 || nameOf(each) !== ".cairn");
    if (node?.subtree === undefined)
      throw new CairnError("damaged", `tree ${objectIdOf(top).slice(0, 12)} does not contain the saved path ${path}`);
    names.push(nameOf(node));
    tree = node.subtree;
  }
  return names;
}

/** A node's name in latin1. */
export function nameOf({ name }: Pick<TreeNode, "name">): string {
  return Buffer.from(name.buffer, name.byteOffset, name.byteLength).toString("latin1");
}
