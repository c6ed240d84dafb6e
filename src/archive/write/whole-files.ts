import type { TreeNode } from "../../formats/restic/tree.ts";
import type { BlobTable } from "../../repository/index/blob-table.ts";
import { workOf } from "../../threads/shared-work.ts";

/** A file that one thread writes, all of it. */
export interface WholeFile {
  path: Uint8Array;
  node: TreeNode;
  /** which of its tree's nodes it is */
  at: number;
  /** of the index, for the one blob that is all of it; -1: several, or with holes */
  entry: number;
}

/** Small files that are written between two looks whether another thread waits. */
const RUN = 256;

/** By pack and offset; what has no one place last. */
export function byPlace({ packOf, offsetOf }: BlobTable): (a: WholeFile, b: WholeFile) => number {
  return ({ entry: a }, { entry: b }) => {
    if (a < 0 || b < 0) return (a < 0 ? 1 : 0) - (b < 0 ? 1 : 0);
    return packOf[a]! - packOf[b]! || offsetOf[a]! - offsetOf[b]!;
  };
}

/**
 * Returns the end of the files from this one on that lie in one pack, or of as many of them as are written before
 * somebody is looked for who waits.
 */
export function runEnd({ packOf }: BlobTable, files: readonly WholeFile[], from: number): number {
  const { entry: first } = files[from]!;
  let to = from + 1;
  if (first < 0) return to;
  for (; to < files.length && to < from + RUN; to++) {
    const { entry } = files[to]!;
    if (entry < 0 || packOf[entry] !== packOf[first]) break;
  }
  return to;
}

/** From where on the files take half as long as those from `from` on, which take `work`; one stays. */
export function halfOf(files: readonly WholeFile[], from: number, work: number): number {
  let half = files.length;
  for (let given = 0; half > from + 1 && given < work / 2;) given += workOf(1, files[--half]!.node.size);
  return half;
}

export function workOfAll(files: readonly WholeFile[]): number {
  return files.reduce((sum, { node }) => sum + workOf(1, node.size), 0);
}
