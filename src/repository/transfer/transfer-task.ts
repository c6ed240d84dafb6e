import type { MasterKeys } from "../../crypto/seal.ts";
import type { KindOfWork } from "../../threads/worker-thread.ts";
import type { SharedIndex } from "../index/blob-index.ts";
import type { PackStyle } from "../packs/pack-style.ts";
import type { FinishedPack } from "../packs/pack-writer.ts";

/** Messages of threads that move blobs into packs for another repository. */
export interface TransferWork {
  requests: { kind: "transfer-move"; task: TransferTask };
  replies: { "transfer-move": null };
  events: TransferEvent;
}
export const TRANSFER = "transfer" as KindOfWork<TransferWork>;

/** The task that every moving thread gets. */
export interface TransferTask {
  from: { keys: MasterKeys; index: SharedIndex; packs: string };
  to: { keys: MasterKeys; style: PackStyle };
  /** folder of unfinished packs; exists */
  directory: string;
  /** See `mostWaiting()`. */
  mostWaiting: number;
  /** entries of the source's index, by pack and offset */
  entries: SharedArrayBuffer;
  /** begin of each group of entries, and the end of the last one; a group is of one pack */
  groups: SharedArrayBuffer;
  /** words as in {@link T} */
  control: SharedArrayBuffer;
}

/** Words of the control block that the main thread shares with the threads that move blobs. */
export const T = {
  /** number of the next group */
  NEXT: 0,
  STOP: 1,
  /** finished packs that are not uploaded; the main thread counts down */
  WAITING: 2,
  BLOBS_DONE: 3,
  KIB_DONE: 4,
} as const;
export const CONTROL_WORDS = 5;

/**
 * `pack`: a finished pack, which the main thread then owns. `damaged`: the name of a damaged or missing source pack.
 * `isElsewhere`: its content was read from another pack.
 */
export type TransferEvent = { pack: FinishedPack } | { damaged: string; isElsewhere: boolean };
