import type { MasterKeys } from "../../crypto/seal.ts";
import type { KindOfWork } from "../../threads/worker-thread.ts";
import type { SharedIndex } from "../index/blob-index.ts";
import type { PackStyle } from "../packs/pack-style.ts";
import type { FinishedPack } from "../packs/pack-writer.ts";

/** Work of threads that move blobs into packs for another repository. */
export interface TransferWork {
  requests: { kind: "transfer-move"; task: TransferTask };
  replies: { "transfer-move": null };
  events: TransferEvent;
}
export const TRANSFER = "transfer" as KindOfWork<TransferWork>;

/** A task that every thread that moves blobs into packs for another repository gets. */
export interface TransferTask {
  from: { keys: MasterKeys; index: SharedIndex; packs: string };
  to: { keys: MasterKeys; style: PackStyle };
  /** where unfinished packs go; there already */
  directory: string;
  /** See `mostWaiting`. */
  mostWaiting: number;
  /** entries of the source's index, by pack and offset */
  entries: SharedArrayBuffer;
  /** where each group of entries begins, and where the last one ends; a group is of one pack */
  groups: SharedArrayBuffer;
  /** words as in {@link T} */
  control: SharedArrayBuffer;
}

/** Words of the control block that the main thread shares with the threads that move blobs. */
export const T = {
  /** next group to be taken */
  NEXT: 0,
  STOP: 1,
  /** packs that are finished and have not arrived; the main thread counts down */
  WAITING: 2,
  BLOBS_DONE: 3,
  KIB_DONE: 4,
} as const;
export const CONTROL_WORDS = 5;

/** Finished packs that wait to be taken away, at most about so many: they take room on a disk. `jobs`: uploads at once. */
export function mostWaiting(jobs = 4): number {
  return Math.max(8, 2 * jobs);
}

/**
 * A pack that a thread has finished: the file is the main thread's from then on; or the name of one of the source that is
 * damaged or missing, and of which something was taken from others.
 */
export type TransferEvent = { pack: FinishedPack } | { elsewhere: string };
