import { sha256 } from "../../crypto/hash.ts";
import { compareBytes, folderOf } from "../../formats/bytes.ts";
import { encodeTree, type TreeNode } from "../../formats/restic/tree.ts";
import { type ListTree, pathIn, type TreeAt, walkTrees } from "./walk-trees.ts";

/** Called with each new tree, subtrees first. `at`: the tree that it replaces. */
export type OnTree = (id: Uint8Array, bytes: Uint8Array, at: TreeAt) => void;

/** Returns the entry that takes the place of `node`, which is undefined if the tree has none. Null: no entry. */
export type EditEntry = (node: TreeNode | undefined) => TreeNode | null;

/** Encodes the nodes of a tree, in any order. Returns the tree's id and bytes. */
export function newTree(nodes: readonly TreeNode[]): { id: Uint8Array; bytes: Uint8Array } {
  const bytes = encodeTree(nodes.toSorted((a, b) => compareBytes(a.name, b.name)));
  return { id: sha256(bytes), bytes };
}

/**
 * Writes a tree again with changed entries. `edits`: by the entries' paths, in latin1. Reads only the trees that lead to
 * these paths. Makes no folder: an edit in a missing one is ignored. Returns the id of the new tree.
 */
export async function editTree(
  root: Uint8Array,
  edits: ReadonlyMap<string, EditEntry>,
  { list, onTree }: { list: ListTree; onTree: OnTree },
): Promise<Uint8Array> {
  if (edits.size === 0) return root;
  const leading = new Set<string>();
  for (const path of edits.keys())
    for (let end = path.lastIndexOf("/"); end > 0; end = path.lastIndexOf("/", end - 1))
      leading.add(path.slice(0, end));
  const byFolder = Map.groupBy(edits, ([path]) => folderOf(path));
  return walkTrees<Uint8Array>(root, list, {
    enters: (_node, path) => leading.has(path) && !edits.has(path),
    done(at, nodes) {
      const kept: TreeNode[] = [];
      const edited = new Map<string, TreeNode>();
      for (const [node, subtree] of nodes) {
        const path = pathIn(at.path, node.name);
        if (edits.has(path)) edited.set(path, node);
        else kept.push(subtree === undefined ? node : { ...node, subtree });
      }
      for (const [path, edit] of byFolder.get(at.path) ?? []) {
        const node = edit(edited.get(path));
        if (node !== null) kept.push(node);
      }
      const { id, bytes } = newTree(kept);
      onTree(id, bytes, at);
      return id;
    },
  });
}
