import { append } from "../../append.ts";
import type { OnDamagedPack } from "../../repository/read/blob-source.ts";
import { CairnError, throwIfAborted, toCairnError } from "../../errors.ts";
import { type BlobIndex, DATA_BLOB } from "../../repository/index/blob-index.ts";
import { bitsOfNewFiles } from "../../fs/linux/mounts.ts";
import type { Thread } from "../../threads/worker-thread.ts";
import { firstFailure, withThreads } from "../../threads/threads.ts";
import type { NotSet } from "./node-writer.ts";
import {
  type LargeFile,
  type LinkedEntry,
  type RangeJob,
  WRITE,
  type WriteHow,
  type WriteOutcome,
  type WriteRequest,
  type WriteTask,
  type WriteWork,
} from "./write-jobs.ts";

export interface WriteTreeOptions extends WriteHow {
  index: BlobIndex;
  tree: Uint8Array;
  /** given if packs are still being fetched; absent: all are there */
  arrivals?: PackArrivals | undefined;
  signal?: AbortSignal | undefined;
  onProgress?: (progress: { done: number; bytes: number }) => void;
  /** may repeat a pack */
  onDamagedPack?: OnDamagedPack | undefined;
}

export interface WriteTreeResult {
  /** entries of all kinds, files too */
  entries: number;
  files: number;
  bytes: number;
  /** of these, bytes that existed already */
  keptBytes: number;
  notSet: NotSet[];
  damaged: { path: Uint8Array; detail: string }[];
  /** names of owners that this machine lacks, for example `user bob`; only with `ownersByName` */
  unknownOwners: ReadonlySet<string>;
}

/** Packs that are being fetched: a directory, or a run of a large file, is written when all its packs are there. */
export interface PackArrivals {
  /** by number of a pack in the index: 1 if nothing more of it is fetched; in shared memory */
  readonly here: Uint8Array;
  /** resolves when nothing more of these packs is fetched */
  until(packs: readonly number[]): Promise<void>;
  /** resolves when nothing more is fetched */
  readonly done: Promise<void>;
}

/** Chunks of a large file that one thread writes at a time. */
const RANGE_CHUNKS = 24;

/** Writes a whole tree of the store into an empty folder with all threads. Nothing is synced. */
export async function writeTree(options: WriteTreeOptions): Promise<WriteTreeResult> {
  const { signal, arrivals } = options;
  return withThreads({ kind: WRITE, isFar: arrivals !== undefined, signal }, async (threads) =>
    new TreeWriting(options, threads).run(),
  );
}

/** Work that any of the threads can do. */
type Work = Exclude<WriteRequest, { kind: "write-begin" | "write-end" }>;

class TreeWriting {
  readonly #options: WriteTreeOptions;
  readonly #threads: Thread<WriteWork>[];
  readonly #control = new Int32Array(new SharedArrayBuffer(8));
  readonly #queue: Work[] = [];
  readonly #waiting: Thread<WriteWork>[];
  readonly #unknownOwners = new Set<string>();
  readonly #result: WriteTreeResult = {
    entries: 0,
    files: 0,
    bytes: 0,
    keptBytes: 0,
    notSet: [],
    damaged: [],
    unknownOwners: this.#unknownOwners,
  };
  readonly #linked: LinkedEntry[] = [];
  readonly #closed: WriteOutcome["closed"] = [];
  readonly #large: { file: LargeFile; left: number; damaged: string | null }[] = [];
  #busy = 0;
  /** Number of pieces of work that wait for packs. */
  #waitingForPacks = 0;
  #failure: Error | undefined;
  #wake: () => void = () => undefined;

  constructor(options: WriteTreeOptions, threads: Thread<WriteWork>[]) {
    this.#options = options;
    this.#threads = threads;
    this.#waiting = [...threads];
  }

  async run(): Promise<WriteTreeResult> {
    const { signal } = this.#options;
    throwIfAborted(signal);
    const stop = (): void => {
      this.#fail(new CairnError("interrupted", "stopped by the caller", { cause: signal?.reason }));
      if (this.#isDrained) this.#wake();
    };
    signal?.addEventListener("abort", stop, { once: true });
    const { index, tree, arrivals, signal: _signal, ...more } = this.#options;
    const { onProgress: _progress, onDamagedPack, ...how } = more;
    const task: WriteTask = {
      ...how,
      index: index.shared,
      newBits: bitsOfNewFiles(Buffer.from(how.target)),
      here: arrivals?.here ?? null,
      control: this.#control.buffer as SharedArrayBuffer,
    };
    try {
      // Waits for all: a thread with an open request cannot be asked to end.
      const begun = await Promise.allSettled(
        this.#threads.map(async (thread) => {
          thread.onEvent = (event) => {
            if ("damaged" in event) onDamagedPack?.(event.damaged, event.isElsewhere);
            if (!("work" in event)) return;
            const { work } = event;
            const isDirectories = Array.isArray(work);
            this.#add(isDirectories ? { kind: "write-directories", jobs: work } : { kind: "write-files", job: work });
          };
          await thread.ask({ kind: "write-begin", task });
        }),
      );
      firstFailure(begun);
      const whole = (how.paths ?? null) === null;
      this.#add({ kind: "write-directories", jobs: [{ path: new Uint8Array(0), tree, node: null, whole }] });
      await this.#drained();
      // The members of hard-link groups need all packs.
      if (this.#failure === undefined) await arrivals?.done;
      const last = { linked: this.#linked.splice(0), closed: this.#closed.splice(0) };
      if (last.linked.length > 0 || last.closed.length > 0) this.#add({ kind: "write-last", ...last });
      await this.#drained();
      if (this.#failure !== undefined) throw this.#failure;
      throwIfAborted(signal);
      this.#result.entries += this.#result.files;
      return this.#result;
    } finally {
      signal?.removeEventListener("abort", stop);
      for (const thread of this.#threads) thread.onEvent = null;
      await Promise.allSettled(this.#threads.map(async (thread) => thread.ask({ kind: "write-end" })));
    }
  }

  #add(work: Work): void {
    this.#queue.push(work);
    this.#dispatch();
  }

  #dispatch(): void {
    while (this.#waiting.length > 0 && this.#queue.length > 0 && this.#failure === undefined) {
      const thread = this.#waiting.pop()!;
      this.#busy++;
      void this.#do(thread, this.#queue.shift()!).then(
        () => this.#back(thread),
        (error: unknown) => {
          this.#fail(error);
          this.#back(thread);
        },
      );
    }
    Atomics.store(this.#control, 0, this.#queue.length === 0 ? this.#waiting.length : 0);
  }

  #fail(error: unknown): void {
    this.#failure ??= toCairnError(error);
    Atomics.store(this.#control, 1, 1);
  }

  /** Adds work when these packs are there. */
  #addAfter(packs: readonly number[], work: Work): void {
    const { arrivals } = this.#options;
    if (arrivals === undefined || packs.length === 0) return this.#add(work);
    this.#waitingForPacks++;
    void arrivals
      .until(packs)
      .catch((error: unknown) => this.#fail(error))
      .finally(() => {
        this.#waitingForPacks--;
        this.#add(work);
        if (this.#isDrained) this.#wake();
      });
  }

  get #isDrained(): boolean {
    return this.#busy === 0 && (this.#waitingForPacks === 0 || this.#failure !== undefined);
  }

  #back(thread: Thread<WriteWork>): void {
    this.#busy--;
    this.#waiting.push(thread);
    this.#dispatch();
    if (this.#isDrained) this.#wake();
  }

  async #drained(): Promise<void> {
    if (this.#isDrained) return;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
  }

  async #do(thread: Thread<WriteWork>, work: Work): Promise<void> {
    if (work.kind === "write-finish") append(this.#result.notSet, await thread.ask(work));
    else if (work.kind !== "write-range") this.#take(await thread.ask(work));
    else {
      const { bytes, kept, damaged } = await thread.ask(work);
      this.#result.bytes += bytes;
      this.#result.keptBytes += kept;
      this.#ranged(work.job.file, damaged);
    }
    this.#options.onProgress?.({ done: this.#result.entries + this.#result.files, bytes: this.#result.bytes });
  }

  #take(outcome: WriteOutcome): void {
    const result = this.#result;
    result.entries += outcome.others;
    result.files += outcome.files;
    result.bytes += outcome.bytes;
    result.keptBytes += outcome.keptBytes;
    append(result.notSet, outcome.notSet);
    append(result.damaged, outcome.damaged);
    for (const name of outcome.unknownOwners) this.#unknownOwners.add(name);
    append(this.#linked, outcome.linked);
    append(this.#closed, outcome.closed);
    for (const { job, packs } of outcome.waiting) this.#addAfter(packs, { kind: "write-directories", jobs: [job] });
    for (const file of outcome.large) this.#cut(file);
  }

  /** Divides a large file into runs of chunks. */
  #cut(file: LargeFile): void {
    const content = file.node.content!;
    const number = this.#large.push({ file, left: 0, damaged: null }) - 1;
    const entry = this.#large[number]!;
    let position = 0;
    const jobs: { job: RangeJob; packs: number[] }[] = [];
    for (let at = 0; at < content.length; at += RANGE_CHUNKS * 32) {
      const part = content.subarray(at, at + RANGE_CHUNKS * 32);
      const { length, packs } = this.#contentOf(part);
      const run = { file: number, path: file.path, content: part, position, mode: file.node.mode };
      jobs.push({ job: { ...run, compares: file.isLeft === true }, packs });
      position += length;
    }
    entry.left = jobs.length;
    for (const { job, packs } of jobs) this.#addAfter(packs, { kind: "write-range", job });
  }

  /** The plain length of a run of chunks, and its packs that are still being fetched. */
  #contentOf(content: Uint8Array): { length: number; packs: number[] } {
    const { index, arrivals } = this.#options;
    const packs = new Set<number>();
    let length = 0;
    for (let at = 0; at < content.length; at += 32) {
      const entry = index.lookup(content, at, DATA_BLOB);
      if (entry < 0) continue;
      length += index.table.plainLengthOf(entry);
      const pack = index.table.packOf[entry]!;
      if (arrivals?.here[pack] === 0) packs.add(pack);
    }
    return { length, packs: [...packs] };
  }

  #ranged(number: number, damaged: string | null): void {
    const entry = this.#large[number]!;
    entry.damaged ??= damaged;
    if (--entry.left > 0) return;
    const { file, damaged: detail } = entry;
    if (detail === null) this.#result.files++;
    else this.#result.damaged.push({ path: file.path, detail });
    this.#add({ kind: "write-finish", file, isDamaged: detail !== null });
  }
}
