import type { MasterKeys } from "../../crypto/seal.ts";
import { throwIfAborted } from "../../errors.ts";
import type { BlobIndex } from "../../repository/blob-index.ts";
import type { EngineThread } from "../engine-thread.ts";
import { firstFailure, withThreads } from "../threads.ts";
import { CONTROL_WORDS, type PackReport, V, type VerifyTask } from "./verify-task.ts";

export interface ProvePacksOptions {
  keys: MasterKeys;
  /** Nobody adds to it meanwhile. */
  index: BlobIndex;
  /** a folder in the layout of a repository's `data` */
  packs: string;
  signal?: AbortSignal | undefined;
}

export interface ProvenPacks {
  reports: PackReport[];
  packs: number;
  blobs: number;
}

/**
 * Reads whole packs by all threads, any number of lists one after the other: names, headers, seals, lengths and hashes of
 * every byte. Damage is a result.
 */
export class PackProver {
  /** A byte for each entry of the index, 1 once the blob was proven at exactly the place that the index gives. */
  readonly proven: Uint8Array;
  readonly #options: ProvePacksOptions;

  constructor(options: ProvePacksOptions) {
    this.#options = options;
    this.proven = new Uint8Array(new SharedArrayBuffer(Math.max(1, options.index.count)));
  }

  /** Proves the packs with these numbers in the index. `onPack` is told now and then how far it is. */
  async prove(
    numbers: readonly number[],
    onProgress?: (done: { packs: number; bytes: number }) => void,
  ): Promise<ProvenPacks> {
    const { signal } = this.#options;
    throwIfAborted(signal);
    return withThreads({ kind: "verify", signal }, async (threads) => this.#proveBy(threads, numbers, onProgress));
  }

  async #proveBy(
    threads: readonly EngineThread[],
    numbers: readonly number[],
    onProgress: ((done: { packs: number; bytes: number }) => void) | undefined,
  ): Promise<ProvenPacks> {
    const { keys, index, packs, signal } = this.#options;
    const control = new Int32Array(new SharedArrayBuffer(CONTROL_WORDS * 4));
    const queue = new Int32Array(new SharedArrayBuffer(Math.max(1, numbers.length) * 4));
    queue.set(numbers);
    control[V.COUNT] = numbers.length;
    control[V.CLOSED] = 1;
    const stop = (): void => {
      Atomics.store(control, V.STOP, 1);
      Atomics.notify(control, V.SIGNAL);
    };
    signal?.addEventListener("abort", stop, { once: true });
    const told = (): void => onProgress?.({ packs: control[V.PACKS_DONE]!, bytes: control[V.KIB_DONE]! * 1024 });
    const timer = onProgress === undefined ? undefined : setInterval(told, PROGRESS_MS);
    const task: VerifyTask = {
      keys,
      index: index.shared,
      packs,
      queue: queue.buffer as SharedArrayBuffer,
      control: control.buffer as SharedArrayBuffer,
      proven: this.proven.buffer as SharedArrayBuffer,
    };
    try {
      const settled = await Promise.allSettled(
        threads.map(async (thread) => {
          try {
            return await thread.ask({ kind: "verify-packs", task });
          } catch (error) {
            stop();
            throw error;
          }
        }),
      );
      const reports = firstFailure(settled).flatMap((outcome) => outcome.reports);
      return {
        reports,
        packs: control[V.PACKS_DONE]!,
        blobs: control[V.BLOBS_DONE]!,
      };
    } finally {
      clearInterval(timer);
      signal?.removeEventListener("abort", stop);
      await Promise.allSettled(threads.map(async (thread) => thread.ask({ kind: "verify-end" })));
    }
  }
}

const PROGRESS_MS = 100;
