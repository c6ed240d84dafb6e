import type { MasterKeys } from "../../crypto/seal.ts";
import type { KindOfWork } from "../../threads/worker-thread.ts";
import type { SharedIndex } from "../index/blob-index.ts";

export type VerifyRequest =
  | { kind: "verify-packs"; task: VerifyTask }
  | { kind: "verify-file"; content: Uint8Array }
  | { kind: "verify-end" };

/** Work of threads that verify packs. */
export interface VerifyWork {
  requests: VerifyRequest;
  replies: { "verify-packs": PackReport[]; "verify-file": Uint8Array | null; "verify-end": null };
  events: never;
}
export const VERIFY = "verify" as KindOfWork<VerifyWork>;

/** A task that every thread that verifies packs gets. */
export interface VerifyTask {
  keys: MasterKeys;
  index: SharedIndex;
  /** the repository's `data` folder */
  packs: string;
  /** numbers of packs in the index, in the order in which they are wanted */
  queue: SharedArrayBuffer;
  /** words as in {@link V} */
  control: SharedArrayBuffer;
  /** a byte for each entry of the index, set once the blob was proven at exactly that place */
  proven: SharedArrayBuffer;
}

/** Words of the control block that the main thread shares with the threads that verify packs. */
export const V = {
  /** next place in the queue to be taken */
  NEXT: 0,
  /** places that are filled */
  COUNT: 1,
  /** 1: nothing more will be queued */
  CLOSED: 2,
  STOP: 3,
  /** counts what sleepers want to know */
  SIGNAL: 4,
  BLOBS_DONE: 5,
  KIB_DONE: 6,
  PACKS_DONE: 7,
} as const;
export const CONTROL_WORDS = 8;

/** Report of what is wrong with one pack file. Packs without a report are sound to the last byte. */
export interface PackReport {
  /** its number in the index */
  pack: number;
  /**
   * `missing`: no such file · `unreadable`: the system refuses · `name`: its SHA-256 is not its name ·
   * `header`: its own list of blobs cannot be read · `size`: it ends early; null when only blobs of it are damaged
   */
  kind: "missing" | "unreadable" | "name" | "header" | "size" | null;
  message: string;
  /** entries of the index whose blob in this pack is damaged, and why */
  blobs: { entry: number; message: string }[];
}
