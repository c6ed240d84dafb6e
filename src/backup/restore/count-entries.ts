import { canBeOne, linkedInode, type TreeNode } from "../../formats/restic/tree.ts";
import { PathSelection } from "../../fs/path-selection.ts";
import { newPacer } from "../../pacer.ts";
import type { BlobSource } from "../../repository/read/blob-source.ts";
import { nameOf, nodesOrNull } from "../databases/nodes.ts";

export interface CountedEntries {
  entries: number;
  directories: number;
  /** Bytes of the content of files, that of several names once. */
  bytes: number;
}

/** Counts what a restore writes. `paths`: raw, below the root; null: everything. */
export async function countEntries(
  reader: BlobSource,
  { root, paths, signal }: { root: Uint8Array; paths: readonly Uint8Array[] | null; signal: AbortSignal | undefined },
): Promise<CountedEntries> {
  const chosen = paths === null ? null : new PathSelection(paths);
  const pace = newPacer(signal);
  const counted = { entries: 0, directories: 0, bytes: 0 };
  const linked = new Map<string, TreeNode>();
  const walk = async (tree: Uint8Array, path: string): Promise<void> => {
    for (const node of (await nodesOrNull(reader, tree)) ?? []) {
      await pace();
      const own = path === "" ? nameOf(node) : `${path}/${nameOf(node)}`;
      const part = chosen?.of(Buffer.from(own, "latin1")) ?? "whole";
      if (part === "no") continue;
      counted.entries++;
      if (node.type === "dir") counted.directories++;
      // Of several names of one file the first brings its content.
      const group = linkedInode(node);
      const other = group === null ? undefined : linked.get(group);
      const isKnown = other !== undefined && canBeOne(other, node);
      if (group !== null) linked.set(group, node);
      if (node.type === "file" && !isKnown) counted.bytes += node.size;
      if (node.subtree !== undefined) await walk(node.subtree, own);
    }
  };
  await walk(root, "");
  return counted;
}
