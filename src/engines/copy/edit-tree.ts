import { sha256 } from "../../crypto/hash.ts";
import { encodeTree, type TreeNode } from "../../formats/tree.ts";
import type { TreeSource } from "../engine.ts";
import type { ExtraBlob } from "../scan/store-sink.ts";

/** A node that takes the place of the one at a path. */
export interface TreeEdit {
  /** below the root, raw bytes */
  path: Uint8Array;
  node: TreeNode;
}

/** A tree with some nodes replaced: the blobs of every directory that differs, and the new root's id. */
export function editTree(source: TreeSource, edits: readonly TreeEdit[]): { blobs: ExtraBlob[]; tree: Uint8Array } {
  const blobs: ExtraBlob[] = [];
  const split = edits.map(({ path, node }) => ({ names: Buffer.from(path).toString("latin1").split("/"), node }));
  return { blobs, tree: edited(source, source.root, split, blobs) };
}

interface SplitEdit {
  names: string[];
  node: TreeNode;
}

function edited(
  source: TreeSource,
  directory: Uint8Array,
  edits: readonly SplitEdit[],
  blobs: ExtraBlob[],
): Uint8Array {
  const byName = new Map<string, SplitEdit[]>();
  for (const edit of edits)
    byName.set(edit.names[0]!, [
      ...(byName.get(edit.names[0]!) ?? []),
      { names: edit.names.slice(1), node: edit.node },
    ]);
  const bytes = encodeTree(
    source
      .list(directory)
      .map((node) =>
        editedNode(source, node, { edits: byName.get(Buffer.from(node.name).toString("latin1")) ?? [], blobs }),
      ),
  );
  const id = sha256(bytes);
  blobs.push({ id, type: "tree", bytes });
  return id;
}

function editedNode(
  source: TreeSource,
  node: TreeNode,
  more: { edits: readonly SplitEdit[]; blobs: ExtraBlob[] },
): TreeNode {
  const { edits, blobs } = more;
  if (edits.length === 0) return node;
  const own = edits.find(({ names }) => names.length === 0);
  if (own !== undefined) return { ...own.node, name: node.name };
  return node.type === "dir" ? { ...node, subtree: edited(source, node.subtree!, edits, blobs) } : node;
}
