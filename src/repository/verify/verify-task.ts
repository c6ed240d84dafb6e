import type { MasterKeys } from "../../crypto/seal.ts";
import type { KindOfWork } from "../../threads/worker-thread.ts";
import type { SharedIndex } from "../index/blob-index.ts";

export type VerifyRequest =
  | { kind: "verify-packs"; task: VerifyTask }
  | { kind: "verify-file"; content: Uint8Array }
  | { kind: "verify-end" };

/** Messages of threads that verify packs. */
export interface VerifyWork {
  requests: VerifyRequest;
  replies: { "verify-packs": PackReport[]; "verify-file": Uint8Array | null; "verify-end": null };
  events: never;
}
export const VERIFY = "verify" as KindOfWork<VerifyWork>;

/** The task that every verifying thread gets. */
export interface VerifyTask {
  keys: MasterKeys;
  index: SharedIndex;
  /** the repository's `data` folder */
  packs: string;
  /** numbers of packs in the index, in the order in which they are wanted */
  queue: SharedArrayBuffer;
  /** words as in {@link V} */
  control: SharedArrayBuffer;
  /** a byte for each index entry, set once the blob was proven at the place in the index */
  proven: SharedArrayBuffer;
}

/** Words of the control block that the main thread shares with the threads that verify packs. */
export const V = {
  /** next position of the queue */
  NEXT: 0,
  /** number of filled positions */
  COUNT: 1,
  /** 1: no more packs will be queued */
  CLOSED: 2,
  STOP: 3,
  /** counts changes that wake waiting threads */
  SIGNAL: 4,
  BLOBS_DONE: 5,
  KIB_DONE: 6,
  PACKS_DONE: 7,
} as const;
export const CONTROL_WORDS = 8;

/** The damage of one pack. Packs without a report are sound. */
export interface PackReport {
  /** its number in the index */
  pack: number;
  /**
   * `missing`: no such file · `unreadable`: an error of the system · `name`: its SHA-256 is not its name · `header`:
   * its list of blobs is unreadable · `size`: it is too short; null: only blobs are damaged
   */
  kind: "missing" | "unreadable" | "name" | "header" | "size" | null;
  message: string;
  /** index entries whose blob in this pack is damaged, with the reason */
  blobs: { entry: number; message: string }[];
}
