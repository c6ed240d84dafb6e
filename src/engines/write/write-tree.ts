import fs from "node:fs";
import type { MasterKeys } from "../../crypto/seal.ts";
import { CairnError, throwIfAborted, toCairnError } from "../../errors.ts";
import { comparePaths } from "../scan/link-groups.ts";
import { type BlobIndex, DATA_BLOB } from "../../repository/blob-index.ts";
import { type EngineThread, giveBackThreads, takeThreads } from "../threads.ts";
import { type HoleList, NodeWriter, type NotSet } from "./node-writer.ts";
import type { DirectoryJob, LargeFile, RangeJob, WriteOutcome, WriteTask } from "./tree-writer.ts";

export interface WriteTreeOptions {
  keys: MasterKeys;
  index: BlobIndex;
  /** the repository's `data` folder */
  packs: string;
  /** an empty folder that exists, absolute, raw bytes */
  target: Uint8Array;
  tree: Uint8Array;
  /** raw paths with what they are in; null or absent: everything */
  paths?: readonly Uint8Array[] | null;
  /** modes without the right to write, nothing set that only the owner may */
  readOnly?: boolean;
  holes: ReadonlyMap<string, HoleList>;
  /** a piece of content by its id, for the few files that this thread writes itself */
  read(id: Uint8Array): Uint8Array;
  signal?: AbortSignal;
  onProgress?: (progress: { done: number; bytes: number }) => void;
}

export interface WriteTreeResult {
  /** entries of all kinds, files too */
  entries: number;
  files: number;
  bytes: number;
  notSet: NotSet[];
  damaged: { path: Uint8Array; detail: string }[];
}

/** Chunks of a large file that one thread writes at a time. */
const RANGE_CHUNKS = 24;

/** Writes a whole tree of the store into an empty folder with all threads. Nothing is synced. */
export async function writeTree(options: WriteTreeOptions): Promise<WriteTreeResult> {
  const threads = takeThreads();
  try {
    return await new TreeWriting(options, threads).run();
  } finally {
    giveBackThreads(threads);
  }
}

type Work = { kind: "directories"; jobs: DirectoryJob[] } | { kind: "range"; job: RangeJob } | { kind: "finish"; file: LargeFile };

class TreeWriting {
  readonly #options: WriteTreeOptions;
  readonly #threads: EngineThread[];
  readonly #control = new Int32Array(new SharedArrayBuffer(8));
  readonly #queue: Work[] = [];
  readonly #waiting: EngineThread[];
  readonly #result: WriteTreeResult = { entries: 0, files: 0, bytes: 0, notSet: [], damaged: [] };
  readonly #linked: LargeFile[] = [];
  readonly #closed: WriteOutcome["closed"] = [];
  readonly #large: { file: LargeFile; left: number; damaged: string | null }[] = [];
  #busy = 0;
  #failure: Error | undefined;
  #wake: () => void = () => undefined;

  constructor(options: WriteTreeOptions, threads: EngineThread[]) {
    this.#options = options;
    this.#threads = threads;
    this.#waiting = [...threads];
  }

  async run(): Promise<WriteTreeResult> {
    const { signal } = this.#options;
    throwIfAborted(signal);
    const stop = (): void => void Atomics.store(this.#control, 1, 1);
    signal?.addEventListener("abort", stop, { once: true });
    const task: WriteTask = {
      keys: this.#options.keys,
      index: this.#options.index.shared,
      packs: this.#options.packs,
      target: this.#options.target,
      holes: this.#options.holes,
      paths: this.#options.paths ?? null,
      readOnly: this.#options.readOnly ?? false,
      control: this.#control.buffer as SharedArrayBuffer,
    };
    try {
      await Promise.all(
        this.#threads.map(async (thread) => {
          thread.onEvent = ({ jobs }) => this.#add({ kind: "directories", jobs });
          await thread.ask({ kind: "write-begin", task });
        }),
      );
      this.#add({ kind: "directories", jobs: [{ path: new Uint8Array(0), tree: this.#options.tree, node: null, whole: (this.#options.paths ?? null) === null }] });
      await this.#drained();
      if (this.#failure !== undefined) throw this.#failure;
      throwIfAborted(signal);
      this.#finish();
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
          this.#failure ??= toCairnError(error);
          Atomics.store(this.#control, 1, 1);
          this.#back(thread);
        },
      );
    }
    Atomics.store(this.#control, 0, this.#queue.length === 0 ? this.#waiting.length : 0);
  }

  #back(thread: EngineThread): void {
    this.#busy--;
    this.#waiting.push(thread);
    this.#dispatch();
    if (this.#busy === 0) this.#wake();
  }

  async #drained(): Promise<void> {
    if (this.#busy === 0) return;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
  }

  async #do(thread: EngineThread, work: Work): Promise<void> {
    if (work.kind === "directories") this.#take(await thread.ask({ kind: "write-directories", jobs: work.jobs }));
    else if (work.kind === "finish") this.#result.notSet.push(...(await thread.ask({ kind: "write-finish", file: work.file })));
    else {
      const { bytes, damaged } = await thread.ask({ kind: "write-range", job: work.job });
      this.#result.bytes += bytes;
      this.#ranged(work.job.file, damaged);
    }
    this.#options.onProgress?.({ done: this.#result.entries + this.#result.files, bytes: this.#result.bytes });
  }

  #take(outcome: WriteOutcome): void {
    const result = this.#result;
    result.entries += outcome.others;
    result.files += outcome.files;
    result.bytes += outcome.bytes;
    result.notSet.push(...outcome.notSet);
    result.damaged.push(...outcome.damaged);
    this.#linked.push(...outcome.linked);
    this.#closed.push(...outcome.closed);
    for (const file of outcome.large) this.#cut(file);
  }

  /** Shares a large file out in runs of chunks. */
  #cut(file: LargeFile): void {
    const content = file.node.content!;
    const number = this.#large.push({ file, left: 0, damaged: null }) - 1;
    const entry = this.#large[number]!;
    let position = 0;
    const jobs: RangeJob[] = [];
    for (let at = 0; at < content.length; at += RANGE_CHUNKS * 32) {
      const part = content.subarray(at, at + RANGE_CHUNKS * 32);
      jobs.push({ file: number, path: file.path, content: part, position });
      position += this.#plainLength(part);
    }
    entry.left = jobs.length;
    for (const job of jobs) this.#add({ kind: "range", job });
  }

  #plainLength(content: Uint8Array): number {
    const { index } = this.#options;
    let length = 0;
    for (let at = 0; at < content.length; at += 32) {
      const entry = index.lookup(content, at, DATA_BLOB);
      if (entry < 0) continue;
      const place = index.place(entry);
      length += place.uncompressedLength || place.length - 32;
    }
    return length;
  }

  #ranged(number: number, damaged: string | null): void {
    const entry = this.#large[number]!;
    entry.damaged ??= damaged;
    if (--entry.left > 0) return;
    if (entry.damaged !== null) {
      this.#result.damaged.push({ path: entry.file.path, detail: entry.damaged });
      fs.rmSync(this.#absolute(entry.file.path), { force: true });
      return;
    }
    this.#result.files++;
    this.#add({ kind: "finish", file: entry.file });
  }

  #absolute(path: Uint8Array): Buffer {
    return Buffer.concat([Buffer.from(this.#options.target), Buffer.from("/"), path]);
  }

  /** Hard links, then the times of the directories they are in, then directories that lock their owner out. */
  #finish(): void {
    if (this.#linked.length === 0 && this.#closed.length === 0) return;
    const writer = new NodeWriter({ readOnly: this.#options.readOnly ?? false });
    const parents = new Map<string, fs.BigIntStats>();
    const first = new Map<bigint, Uint8Array>();
    for (const { path, node } of this.#linked.toSorted((a, b) => comparePaths(a.path, b.path))) {
      const absolute = this.#absolute(path);
      const parent = absolute.subarray(0, absolute.lastIndexOf(47));
      const key = parent.toString("latin1");
      if (!parents.has(key)) parents.set(key, fs.lstatSync(parent, { bigint: true }));
      this.#link(writer, { node, path, absolute, parent, first });
    }
    this.#restoreTimes(writer, parents);
    for (const { path, node } of this.#closed.toSorted((a, b) => comparePaths(b.path, a.path))) {
      const fd = fs.openSync(this.#absolute(path), fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
      writer.finishDirectory(fd, node, path);
      fs.closeSync(fd);
    }
    this.#result.notSet.push(...writer.notSet);
  }

  #link(writer: NodeWriter, member: { node: TreeNodeOf; path: Uint8Array; absolute: Buffer; parent: Buffer; first: Map<bigint, Uint8Array> }): void {
    const { node, path, absolute, parent, first } = member;
    const dirfd = fs.openSync(parent, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
    try {
      const existing = first.get(node.inode);
      if (existing !== undefined) {
        fs.linkSync(Buffer.from(existing), absolute);
        this.#result.files++;
        return;
      }
      first.set(node.inode, absolute);
      if (node.type !== "file") {
        if (writer.special(dirfd, node, { name: node.name, path })) this.#result.entries++;
        return;
      }
      const holes = this.#options.holes.get(Buffer.from(path).toString("latin1"));
      writer.file(dirfd, node, { name: node.name, path, ...(holes === undefined ? {} : { holes }) }, this.#pieces(node));
      this.#result.files++;
    } catch (error) {
      if (!(error instanceof CairnError) || error.code !== "damaged") throw error;
      first.delete(node.inode);
      this.#result.damaged.push({ path, detail: error.message });
      fs.rmSync(absolute, { force: true });
    } finally {
      fs.closeSync(dirfd);
    }
  }

  *#pieces(node: TreeNodeOf): Iterable<Uint8Array> {
    const content = node.content ?? new Uint8Array(0);
    for (let at = 0; at < content.length; at += 32) yield this.#options.read(content.subarray(at, at + 32));
  }

  #restoreTimes(writer: NodeWriter, parents: ReadonlyMap<string, fs.BigIntStats>): void {
    for (const [path, stat] of parents) {
      const fd = fs.openSync(Buffer.from(path, "latin1"), fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
      writer.setTimes(fd, stat.mtimeNs);
      fs.closeSync(fd);
    }
  }
}

type TreeNodeOf = LargeFile["node"];
