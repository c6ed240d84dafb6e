import { canBeOne, linkedInode, type TreeNode } from "../../formats/restic/tree.ts";
import { PathSelection } from "../../fs/path-selection.ts";
import { objectIdOf } from "../../ids.ts";
import type { BlobSource } from "../../repository/read/blob-source.ts";
import { DATA_BLOB } from "../../repository/index/blob-index.ts";
import { pathIn, walkTrees } from "../../repository/trees/walk-trees.ts";

export interface CountedEntries {
  entries: number;
  directories: number;
  /** Bytes of the files' content; a file with several names counts once. */
  bytes: number;
}

const NONE: CountedEntries = { entries: 0, directories: 0, bytes: 0 };

/**
 * Counts the entries that a restore writes. `paths`: raw, below the root; null: everything. Reads a tree that occurs
 * several times once and counts each occurrence. Counts nothing of unreadable trees.
 */
export async function countEntries(
  { index, listTree }: BlobSource,
  { root, paths, signal }: { root: Uint8Array; paths: readonly Uint8Array[] | null; signal: AbortSignal | undefined },
): Promise<CountedEntries> {
  const chosen = paths === null ? null : new PathSelection(paths);
  const partOf = (path: string): "whole" | "part" | "no" => chosen?.of(Buffer.from(path, "latin1")) ?? "whole";
  /** By id, the counts of a tree that is wanted as a whole. */
  const known = new Map<string, CountedEntries>();
  /** By hard-link group, one node for each different content under its names. */
  const linked = new Map<string, TreeNode[]>();
  let linkedBytes = 0;
  /** Returns the size of a file's pieces; the node's size if the index lacks a piece. */
  const sizeOf = ({ content, size }: TreeNode): number => {
    let held = 0;
    for (let at = 0; at < (content?.length ?? 0); at += 32) {
      const entry = index.lookup(content!, at, DATA_BLOB);
      if (entry < 0) return size;
      held += index.table.plainLengthOf(entry);
    }
    return held;
  };
  const counted = await walkTrees<CountedEntries>(
    root,
    listTree,
    {
      known: ({ id, path }) => (partOf(path) === "whole" ? known.get(objectIdOf(id)) : undefined),
      enters: (_node, path) => partOf(path) !== "no",
      unread: () => NONE,
      done({ id, path }, nodes) {
        const sum = { ...NONE };
        for (const [node, below] of nodes) {
          if (chosen !== null && partOf(pathIn(path, node.name)) === "no") continue;
          sum.entries += 1 + (below?.entries ?? 0);
          sum.directories += (node.type === "dir" ? 1 : 0) + (below?.directories ?? 0);
          sum.bytes += below?.bytes ?? 0;
          if (node.type !== "file") continue;
          // Equal content under several names of a file counts once.
          const group = linkedInode(node);
          const others = group === null ? [] : (linked.get(group) ?? []);
          if (group === null) sum.bytes += sizeOf(node);
          else if (!others.some((other) => canBeOne(other, node))) {
            linkedBytes += sizeOf(node);
            linked.set(group, [...others, node]);
          }
        }
        if (partOf(path) === "whole") known.set(objectIdOf(id), sum);
        return sum;
      },
    },
    signal,
  );
  return { ...counted, bytes: counted.bytes + linkedBytes };
}
