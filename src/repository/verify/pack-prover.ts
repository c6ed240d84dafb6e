import { availableParallelism } from "node:os";
import type { MasterKeys } from "../../crypto/seal.ts";
import { CairnError, throwIfAborted } from "../../errors.ts";
import { objectIdOf } from "../../ids.ts";
import { chosenJobs, firstFailure, THREADS_BESIDE, withThreads } from "../../threads/threads.ts";
import type { Thread } from "../../threads/worker-thread.ts";
import type { BlobIndex } from "../index/blob-index.ts";
import type { FetchOptions, NearPacks, WantedRange } from "../read/near-packs.ts";
import type { StoredFile } from "../storage/storage.ts";
import { CONTROL_WORDS, type PackReport, V, VERIFY, type VerifyTask, type VerifyWork } from "./verify-task.ts";

export interface PackProverOptions {
  readonly keys: MasterKeys;
  /** The index must not grow during the proof. */
  readonly index: BlobIndex;
  /** A folder with the layout of a repository's `data`. */
  readonly folder: string;
  /** A byte for each index entry, in shared memory: 1 once the blob was proven at its place in the index. */
  readonly proven: Uint8Array;
  readonly signal?: AbortSignal | undefined;
  /** Called repeatedly with the progress. */
  readonly onProgress?: ((done: ProvenSoFar) => void) | undefined;
}

/** `bytes`: of the blobs, in whole KiB. */
export interface ProvenSoFar {
  readonly packs: number;
  readonly blobs: number;
  readonly bytes: number;
}

const PROGRESS_MS = 100;

/**
 * Reads whole packs by threads as soon as they are wanted, and checks names, headers, MACs, lengths and hashes of every
 * byte. Damage is a result. Always call `close`, before the threads are given back.
 */
export class PackProver {
  readonly #threads: readonly Thread<VerifyWork>[];
  readonly #signal: AbortSignal | undefined;
  readonly #control = new Int32Array(new SharedArrayBuffer(CONTROL_WORDS * 4));
  readonly #queue: Int32Array;
  readonly #queued: Uint8Array;
  readonly #task: VerifyTask;
  readonly #reports: Promise<PackReport[]>;
  readonly #timer: NodeJS.Timeout | undefined;
  readonly #stop = (): void => this.#set(V.STOP);

  constructor(threads: readonly Thread<VerifyWork>[], options: PackProverOptions) {
    const { keys, index, folder, proven, signal, onProgress } = options;
    this.#threads = threads;
    this.#signal = signal;
    this.#queue = new Int32Array(new SharedArrayBuffer(Math.max(1, index.packCount) * 4));
    this.#queued = new Uint8Array(index.packCount);
    signal?.addEventListener("abort", this.#stop, { once: true });
    if (onProgress !== undefined) this.#timer = setInterval(() => onProgress(this.done), PROGRESS_MS);
    this.#task = {
      keys,
      index: index.shared,
      packs: folder,
      queue: this.#queue.buffer as SharedArrayBuffer,
      control: this.#control.buffer as SharedArrayBuffer,
      proven: proven.buffer as SharedArrayBuffer,
    };
    this.#reports = this.#prove(threads);
    // `end` throws the error.
    this.#reports.catch(() => undefined);
  }

  get done(): ProvenSoFar {
    const [packs, blobs, kib] = [V.PACKS_DONE, V.BLOBS_DONE, V.KIB_DONE].map((word) => this.#control[word]!);
    return { packs: packs!, blobs: blobs!, bytes: kib! * 1024 };
  }

  /** Queues a pack by its number in the index, once. */
  want(pack: number): void {
    if (this.#queued[pack] === 1) return;
    this.#queued[pack] = 1;
    this.#queue[this.#control[V.COUNT]!] = pack;
    Atomics.add(this.#control, V.COUNT, 1);
    this.#wake();
  }

  /** Waits for all queued packs and returns the reports about damaged ones. Call it after the last `want`. */
  async end(): Promise<PackReport[]> {
    this.#set(V.CLOSED);
    const reports = await this.#reports;
    throwIfAborted(this.#signal);
    return reports;
  }

  async close(): Promise<void> {
    this.#stop();
    await this.#reports.catch(() => undefined);
    clearInterval(this.#timer);
    this.#signal?.removeEventListener("abort", this.#stop);
    await endOf(this.#threads);
  }

  /** Lets further threads take packs until the queue is closed and empty. Returns their reports. */
  async join(threads: readonly Thread<VerifyWork>[]): Promise<PackReport[]> {
    try {
      return await this.#prove(threads);
    } finally {
      await endOf(threads);
    }
  }

  async #prove(threads: readonly Thread<VerifyWork>[]): Promise<PackReport[]> {
    const settled = await Promise.allSettled(
      threads.map(async (thread) => {
        try {
          return await thread.ask({ kind: "verify-packs", task: this.#task });
        } catch (error) {
          this.#stop();
          throw error;
        }
      }),
    );
    return firstFailure(settled).flat();
  }

  #set(word: number): void {
    Atomics.store(this.#control, word, 1);
    this.#wake();
  }

  #wake(): void {
    Atomics.add(this.#control, V.SIGNAL, 1);
    Atomics.notify(this.#control, V.SIGNAL);
  }
}

async function endOf(threads: readonly Thread<VerifyWork>[]): Promise<void> {
  await Promise.allSettled(threads.map(async (thread) => thread.ask({ kind: "verify-end" })));
}

export interface PacksToProve extends Omit<PackProverOptions, "folder" | "proven"> {
  readonly near: NearPacks;
  /** Packs of the index, with their sizes. */
  readonly packs: readonly StoredFile[];
  /** Settles when the main thread has no other work; until then it needs a core of its own. Default: it has none. */
  readonly walked?: Promise<void> | undefined;
}

export interface ProvenPacks extends ProvenSoFar {
  readonly reports: readonly PackReport[];
  /** As in `PackProverOptions`. */
  readonly proven: Uint8Array;
}

/** Bytes of packs that are fetched at once from a remote storage, while the packs before are proven. */
const BATCH_BYTES = 64 * 1024 * 1024;
/** Bytes that take one thread longer than the start of another. */
const WORTH_A_THREAD = 32 * 1024 * 1024;
/** Bytes of packs that take two threads longer than the walk of most repositories: then nothing waits for its end. */
const LONGER_THAN_WALKS = 256 * 1024 * 1024;

/** Attempts to prove a remote pack that is damaged outside its blobs: the transfer may have damaged it. */
const MOST_PROOFS = 3;

/** Proves these packs by all threads; fetches remote packs a few at a time. */
export async function provePacks(options: PacksToProve): Promise<ProvenPacks> {
  const { near, index } = options;
  const proven = new Uint8Array(new SharedArrayBuffer(Math.max(1, index.count)));
  let { reports, ...done } = await proveOnce(options, proven);
  for (let left = near.isLocal ? 1 : MOST_PROOFS; left > 1; left--) {
    // Damaged blobs were already fetched again.
    const unsure = reports.filter(
      ({ kind, blobs }) => blobs.length === 0 && kind !== "missing" && kind !== "unreadable",
    );
    if (unsure.length === 0) break;
    const names = new Set<string>(unsure.map(({ pack }) => objectIdOf(index.table.packId(pack))));
    const packs = options.packs.filter(({ name }) => names.has(name));
    const again = await proveOnce({ ...options, packs, onProgress: undefined }, proven);
    reports = [...reports.filter((report) => !unsure.includes(report)), ...again.reports];
    done = { packs: done.packs, blobs: done.blobs + again.blobs, bytes: done.bytes + again.bytes };
  }
  return { reports, proven, ...done };
}

/** Lets another thread prove packs, if one is free before the work is `over`. Returns its reports. */
async function helped(prover: PackProver, over: AbortSignal): Promise<PackReport[]> {
  let hasJoined = false;
  try {
    return await withThreads({ kind: VERIFY, count: 1, signal: over }, async (threads) => {
      hasJoined = true;
      return prover.join(threads);
    });
  } catch (error) {
    // Without another thread the first one proves all packs.
    if (hasJoined) throw error;
    return [];
  }
}

async function proveOnce(
  options: PacksToProve,
  proven: Uint8Array,
): Promise<ProvenSoFar & { reports: readonly PackReport[] }> {
  const { near, packs: all, index, walked, signal, onProgress } = options;
  const jobs = chosenJobs();
  const numbers = new Map<string, number>();
  for (let pack = 0; pack < index.packCount; pack++) numbers.set(objectIdOf(index.table.packId(pack)), pack);
  const reports: PackReport[] = [];
  let [packs, blobs, bytes] = [0, 0, 0];
  const bring = async (batch: readonly StoredFile[]): Promise<StoredFile[]> => {
    const lost = await bringPacks(batch, near, { atOnce: jobs, signal });
    for (const [name, message] of lost)
      reports.push({ pack: numbers.get(name)!, kind: "unreadable", message, blobs: [] });
    return batch.filter(({ name }) => !lost.has(name));
  };
  const batches = near.isLocal ? [all] : batchesOf(all);
  let coming = bring(batches[0] ?? []);
  for (let at = 0; at < batches.length; at++) {
    const here = await coming;
    coming = bring(batches[at + 1] ?? []);
    coming.catch(() => undefined);
    if (here.length === 0) continue;
    throwIfAborted(signal);
    const count = jobs ?? (walked && THREADS_BESIDE);
    const found = await withThreads({ kind: VERIFY, count, signal }, async (threads) => {
      const told = (done: ProvenSoFar): void =>
        onProgress?.({ packs: packs + done.packs, blobs: blobs + done.blobs, bytes: bytes + done.bytes });
      const prover = new PackProver(threads, {
        ...options,
        folder: near.folder,
        proven,
        onProgress: onProgress && told,
      });
      try {
        for (const { name } of here) prover.want(numbers.get(name)!);
        const helpers: Promise<PackReport[]>[] = [];
        const over = new AbortController();
        const total = here.reduce((sum, { size }) => sum + size, 0);
        const free = total >= LONGER_THAN_WALKS ? Promise.resolve() : walked;
        void free?.then(() => {
          const isWorthIt = availableParallelism() > 1 && total - prover.done.bytes >= WORTH_A_THREAD;
          if (jobs === undefined && threads.length === 1 && !over.signal.aborted && isWorthIt)
            helpers.push(helped(prover, over.signal));
        });
        const [own] = await Promise.allSettled([prover.end().finally(() => over.abort())]);
        return { reports: firstFailure([own, ...(await Promise.allSettled(helpers))]).flat(), done: prover.done };
      } finally {
        await prover.close();
      }
    });
    for (const report of found.reports) reports.push(report);
    packs += found.done.packs;
    blobs += found.done.blobs;
    const unread = new Set(found.reports.filter(({ kind }) => kind !== null).map(({ pack }) => pack));
    for (const { name, size } of here) {
      if (!unread.has(numbers.get(name)!)) bytes += size;
      near.drop(name);
    }
  }
  return { reports, packs, blobs, bytes };
}

/** A blob that a full read has not found sound at its place in the index. */
interface UnprovenBlob {
  readonly entry: number;
  /** Number of its pack in the index, and the damage that the read found in it. */
  readonly pack: number;
  readonly report: PackReport | undefined;
  /** The damage of the blob itself. Absent: its pack cannot be read, or does not have the blob there. */
  readonly own: string | undefined;
}

/** Yields the blobs that a full read should have proven, and has not. */
export function* unprovenBlobs(
  { table }: BlobIndex,
  { reports, proven }: Pick<ProvenPacks, "reports" | "proven">,
  shouldBeProven: (entry: number) => boolean,
): Generator<UnprovenBlob> {
  const ofPacks = new Map(reports.map((report) => [report.pack, report]));
  const own = new Map(reports.flatMap(({ blobs }) => blobs.map(({ entry, message }) => [entry, message])));
  for (let entry = 0; entry < table.count; entry++) {
    if (proven[entry] === 1 || !shouldBeProven(entry)) continue;
    const pack = table.packOf[entry]!;
    yield { entry, pack, report: ofPacks.get(pack), own: own.get(entry) };
  }
}

/** Returns the problem of a whole pack as the reason why its blobs were not proven; null if there is none. */
export function wholePackDamage(report: PackReport | undefined, name: string): string | null {
  if (report?.kind === "missing") return `its pack ${name} is missing`;
  if (report?.kind === "unreadable") return `its pack ${name} cannot be read: ${report.message}`;
  if (report?.kind === "name") return `its pack ${name} does not match its name`;
  return null;
}

function batchesOf(packs: readonly StoredFile[]): StoredFile[][] {
  const batches: StoredFile[][] = [];
  let bytes = BATCH_BYTES;
  for (const pack of packs) {
    if (bytes >= BATCH_BYTES) {
      batches.push([]);
      bytes = 0;
    }
    batches.at(-1)!.push(pack);
    bytes += pack.size;
  }
  return batches;
}

/** Makes packs local. Returns the reasons of the packs that cannot be fetched. */
async function bringPacks(
  packs: readonly StoredFile[],
  near: NearPacks,
  how: FetchOptions,
): Promise<Map<string, string>> {
  const lost = new Map<string, string>();
  const range = ({ name, size }: StoredFile): WantedRange => ({ pack: name, offset: 0, length: size });
  /** Returns the reason why a pack cannot be fetched, or null. */
  const fetch = async (wanted: readonly StoredFile[]): Promise<string | null> => {
    throwIfAborted(how.signal);
    try {
      await near.fetch(wanted.map(range), how);
      return null;
    } catch (error) {
      if (!(error instanceof CairnError) || error.code !== "damaged") throw error;
      return error.message;
    }
  };
  if (packs.length === 0 || (await fetch(packs)) === null) return lost;
  for (const pack of packs) {
    const why = await fetch([pack]);
    if (why !== null) lost.set(pack.name, why);
  }
  return lost;
}
