import type { TreeNode } from "../../formats/tree.ts";
import type { BlobPlace } from "../../repository/blob-reader.ts";
import { workOf } from "../shared-work.ts";

/** A file that one thread writes, all of it. */
export interface WholeFile {
  path: Uint8Array;
  node: TreeNode;
  /** which of its tree's nodes it is */
  at: number;
  /** of the one blob that is all of it; null: several, or with holes */
  place: BlobPlace | null;
}

/** Small files that are written between two looks whether another thread waits. */
const RUN = 256;

/** By pack and offset; what has no one place last. */
export function byPlace({ place: a }: WholeFile, { place: b }: WholeFile): number {
  if (a === null || b === null) return (a === null ? 1 : 0) - (b === null ? 1 : 0);
  return Buffer.compare(a.pack, b.pack) || a.offset - b.offset;
}

/** Where the files from this one on that lie in the same pack end, or as many of them as are written before somebody is looked for who waits. */
export function runEnd(files: readonly WholeFile[], from: number): number {
  const first = files[from]!.place;
  let to = from + 1;
  if (first === null) return to;
  for (; to < files.length && to < from + RUN; to++) {
    const { place } = files[to]!;
    if (place === null || Buffer.compare(place.pack, first.pack) !== 0) break;
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
