import type { MasterKeys } from "../../crypto/seal.ts";
import { throwIfAborted } from "../../errors.ts";
import { objectIdOf } from "../../ids.ts";
import type { BlobIndex } from "../../repository/blob-index.ts";
import type { EngineThread } from "../engine-thread.ts";
import { firstFailure, withThreads } from "../threads.ts";
import type { CheckedPoint } from "./checked-point.ts";
import { type PointManifest, NO_MANIFEST, readPointManifest } from "./point-manifest.ts";
import { type ContentProblem, ProblemList } from "./problem-list.ts";
import { StoreReader } from "./store-reader.ts";
import { type ChunkedFile, TreeWalk, type TreeTotals } from "./tree-walk.ts";
import { CONTROL_WORDS, type PackReport, V, type VerifyTask } from "./verify-task.ts";

export interface VerifyContentOptions {
  keys: MasterKeys;
  /** Freshly loaded; nobody adds to it meanwhile. */
  index: BlobIndex;
  /** the repository's `data` folder */
  packs: string;
  points: readonly CheckedPoint[];
  /** Also packs that no point needs. */
  allPacks?: boolean;
  /** Also hash every file of several blobs as a whole. */
  deep?: boolean;
  signal?: AbortSignal;
  /** `done` counts blobs. */
  onProgress?: (progress: { done: number; total?: number; bytes: number }) => void;
}

/** What was found of one point. */
export interface PointVerdict {
  label: string;
  /** Everything it needs was read and is what was saved. */
  sound: boolean;
  /** Computed from its trees; null when that was not possible. */
  stateDigest: Uint8Array | null;
  metadataDigest: Uint8Array | null;
  files: number;
  bytes: number;
}

export interface VerifyContentResult {
  points: PointVerdict[];
  problems: ContentProblem[];
  /** Problems beyond those listed. */
  more: number;
  /** Packs that are damaged or missing, by hex name. */
  damagedPacks: string[];
  /** Entries of what is needed, or with `allPacks` of all, that could not be read where the index has it. */
  unproven: number[];
  packs: number;
  blobs: number;
  packBytes: number;
}

const PROGRESS_MS = 100;

/**
 * Proves points of a store: every pack that they need is read whole by all threads, every blob's seal and hash is
 * checked, and their digests are computed anew from their trees. Damage is a result; thrown are `interrupted` and
 * failures of the system that are not about one file of the store.
 */
export async function verifyContent(options: VerifyContentOptions): Promise<VerifyContentResult> {
  throwIfAborted(options.signal);
  return withThreads({ kind: "verify", signal: options.signal }, async (threads) =>
    new ContentVerification(options, threads).run(),
  );
}

interface Walked {
  point: CheckedPoint;
  manifest: PointManifest;
  totals: TreeTotals;
}

class ContentVerification {
  readonly #options: VerifyContentOptions;
  readonly #threads: readonly EngineThread[];
  readonly #store: StoreReader;
  readonly #walk: TreeWalk;
  readonly #control = new Int32Array(new SharedArrayBuffer(CONTROL_WORDS * 4));
  readonly #queue: Int32Array;
  readonly #proven: Uint8Array;
  readonly #queued: Uint8Array;
  #total: number | undefined;

  constructor(options: VerifyContentOptions, threads: readonly EngineThread[]) {
    const { keys, index, packs, signal } = options;
    this.#options = options;
    this.#threads = threads;
    this.#store = new StoreReader(keys, index, packs);
    this.#queue = new Int32Array(new SharedArrayBuffer(Math.max(1, index.packCount) * 4));
    this.#proven = new Uint8Array(new SharedArrayBuffer(Math.max(1, index.count)));
    this.#queued = new Uint8Array(index.packCount);
    this.#walk = new TreeWalk({ store: this.#store, onPack: (pack) => this.#want(pack), signal });
  }

  async run(): Promise<VerifyContentResult> {
    const { signal, onProgress } = this.#options;
    const stop = (): void => this.#signal(V.STOP);
    signal?.addEventListener("abort", stop, { once: true });
    const timer = onProgress === undefined ? undefined : setInterval(() => this.#progress(), PROGRESS_MS);
    // Begun before the trees are walked: packs are read as soon as the walk finds that they are needed.
    const packs = this.#verifyPacks();
    packs.catch(() => undefined);
    try {
      const walked = await this.#walkPoints();
      this.#total = this.#countNeeded();
      this.#signal(V.CLOSED);
      const reports = await packs;
      await this.#hashUnknown(walked);
      const wrong = this.#options.deep === true ? await this.#wrongFiles() : new Map<string, string>();
      throwIfAborted(signal);
      return await this.#conclude(walked, reports, wrong);
    } catch (error) {
      stop();
      await packs.catch(() => undefined);
      throw error;
    } finally {
      clearInterval(timer);
      signal?.removeEventListener("abort", stop);
      this.#store.close();
      await Promise.allSettled(this.#threads.map(async (thread) => thread.ask({ kind: "verify-end" })));
    }
  }

  #progress(): void {
    const done = this.#control[V.BLOBS_DONE]!;
    const bytes = this.#control[V.KIB_DONE]! * 1024;
    this.#options.onProgress?.({
      done,
      bytes,
      ...(this.#total === undefined ? {} : { total: Math.max(this.#total, done) }),
    });
  }

  #signal(word: number): void {
    Atomics.store(this.#control, word, 1);
    this.#wake();
  }

  #wake(): void {
    Atomics.add(this.#control, V.SIGNAL, 1);
    Atomics.notify(this.#control, V.SIGNAL);
  }

  #want(pack: number): void {
    if (this.#queued[pack] === 1) return;
    this.#queued[pack] = 1;
    this.#queue[this.#control[V.COUNT]!] = pack;
    Atomics.add(this.#control, V.COUNT, 1);
    this.#wake();
  }

  async #verifyPacks(): Promise<PackReport[]> {
    const { keys, index, packs } = this.#options;
    const task: VerifyTask = {
      keys,
      index: index.shared,
      packs,
      queue: this.#queue.buffer as SharedArrayBuffer,
      control: this.#control.buffer as SharedArrayBuffer,
      proven: this.#proven.buffer as SharedArrayBuffer,
    };
    const settled = await Promise.allSettled(
      this.#threads.map(async (thread) => {
        try {
          return await thread.ask({ kind: "verify-packs", task });
        } catch (error) {
          this.#signal(V.STOP);
          throw error;
        }
      }),
    );
    return firstFailure(settled).flatMap((outcome) => outcome.reports);
  }

  async #walkPoints(): Promise<Walked[]> {
    const walked: Walked[] = [];
    // Of chosen paths the first name of a file may not be one: what such a point, without digests, shares with others is theirs.
    const isWithout = ({ metadataDigest }: CheckedPoint): number => Number(metadataDigest === null);
    for (const point of this.#options.points.toSorted((a, b) => isWithout(a) - isWithout(b))) {
      const { tree, snapshotTree } = point;
      const manifest = snapshotTree === null ? NO_MANIFEST : readPointManifest(this.#store, snapshotTree);
      const totals = await this.#walk.point(tree, manifest);
      if (snapshotTree !== null) await this.#walk.mark(snapshotTree);
      walked.push({ point, manifest, totals });
    }
    if (this.#options.allPacks === true) {
      const { table } = this.#options.index;
      for (let pack = 0; pack < table.packCount; pack++) if (table.packRefs[pack]! > 0) this.#want(pack);
    }
    return walked;
  }

  #countNeeded(): number {
    if (this.#options.allPacks === true) return this.#options.index.count;
    return this.#walk.needed.reduce((sum, needed) => sum + needed, 0);
  }

  /** Whole-file hashes that no manifest says are computed, and the digests that hang on them. */
  async #hashUnknown(walked: Walked[]): Promise<void> {
    const unknown = [...this.#walk.chunked.values()].filter((file) => file.sha256 === null);
    if (unknown.length === 0) return;
    await this.#hashFiles(unknown, (file, sha256) => {
      file.sha256 = sha256;
    });
    this.#walk.forgetUnhashed();
    for (const entry of walked) {
      if (entry.totals.state === null) entry.totals = await this.#walk.point(entry.point.tree, entry.manifest);
    }
  }

  /** Files whose content as a whole is not what their point's manifest says, by their content. */
  async #wrongFiles(): Promise<Map<string, string>> {
    const wrong = new Map<string, string>();
    const files = [...this.#walk.chunked].filter(([, file]) => file.sha256 !== null);
    const keys = new Map(files.map(([key, file]) => [file, key]));
    await this.#hashFiles([...keys.keys()], (file, sha256) => {
      if (sha256 === null || Buffer.compare(sha256, file.sha256!) === 0) return;
      wrong.set(
        keys.get(file)!,
        `its blobs together have SHA-256 ${objectIdOf(sha256)}, recorded is ${objectIdOf(file.sha256!)}`,
      );
    });
    return wrong;
  }

  async #hashFiles(files: ChunkedFile[], each: (file: ChunkedFile, sha256: Uint8Array | null) => void): Promise<void> {
    const left = files.toSorted((a, b) => a.content.length - b.content.length);
    const settled = await Promise.allSettled(
      this.#threads.map(async (thread) => {
        for (let file = left.pop(); file !== undefined; file = left.pop()) {
          throwIfAborted(this.#options.signal);
          each(file, await thread.ask({ kind: "verify-file", content: file.content }));
        }
      }),
    );
    firstFailure(settled);
  }

  #unproven(): number[] {
    const { index, allPacks } = this.#options;
    const unproven: number[] = [];
    for (let entry = 0; entry < index.count; entry++)
      if (this.#proven[entry] !== 1 && (allPacks === true || this.#walk.needed[entry] === 1)) unproven.push(entry);
    return unproven;
  }

  async #conclude(
    walked: readonly Walked[],
    reports: readonly PackReport[],
    wrong: ReadonlyMap<string, string>,
  ): Promise<VerifyContentResult> {
    const { needed, suspicious } = this.#walk;
    const { index, signal, allPacks } = this.#options;
    const list = new ProblemList({ index, needed, proven: this.#proven, reports, all: allPacks === true });
    list.addPacks();
    if (suspicious || wrong.size > 0 || list.anyLost()) {
      const points = walked.map(({ point }) => point);
      await list.addPaths(points, { store: this.#store, files: wrong, signal });
    }
    for (const { point, manifest, totals } of walked) list.addDigests(point, manifest, totals);
    return {
      points: walked.map(({ point, totals }) => ({
        label: point.label,
        sound: !list.damaged.has(point.label),
        stateDigest: totals.state,
        metadataDigest: totals.meta,
        files: totals.files,
        bytes: totals.bytes,
      })),
      problems: list.problems,
      more: list.more,
      damagedPacks: reports.map((report) => objectIdOf(index.table.packId(report.pack))).toSorted(),
      unproven: this.#unproven(),
      packs: this.#control[V.PACKS_DONE]!,
      blobs: this.#control[V.BLOBS_DONE]!,
      packBytes: this.#control[V.KIB_DONE]! * 1024,
    };
  }
}
