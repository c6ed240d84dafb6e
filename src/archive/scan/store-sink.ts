import { randomBytes } from "node:crypto";
import { openSync, unlinkSync, writeSync } from "node:fs";
import { join } from "node:path";
import { isMainThread } from "node:worker_threads";
import { CairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import type { MasterKeys } from "../../crypto/seal.ts";
import { type Arena, arenaOver } from "../../native.ts";
import { BlobIndex, blobTypeOf, type SharedIndex } from "../../repository/index/blob-index.ts";
import { type PackStyle, writerOptions } from "../../repository/packs/pack-style.ts";
import { BlobForwarder, type ForwardTarget, type ForwardTask } from "../../repository/transfer/forward.ts";
import { type FinishedPack, type PackTail, PackWriter } from "../../repository/packs/pack-writer.ts";
import { clearAway } from "../../fs/remove-all.ts";

/** A store that a scan puts new content into. */
export interface ScanStore {
  keys: MasterKeys;
  index: BlobIndex;
  directory: string;
  /** receives all new content too */
  forward?: ForwardTarget | undefined;
  /** bytes that may be stored, else `no_space` with `most_bytes` in its details; null or absent: any number */
  mostBytes?: number | null | undefined;
  /** takes each pack once it is finished, in a form of its own; absent: the scan's result has all of them */
  taker?: PackTaker | undefined;
  /**
   * Lists the blobs of databases that the caller need not store. New blobs of databases that the previous scan had are
   * spilled, and their trees handed over; absent: they are stored as any other content.
   */
  pages?: BlobIndex | undefined;
}

/** Takes packs from a scan while it goes on. */
export interface PackTaker {
  readonly style: PackStyle;
  /** one word: number of packs that were handed over and not yet taken in; if there are too many, threads wait */
  readonly waiting: SharedArrayBuffer;
  onPack(pack: FinishedPack): void;
}

export interface StoreSinkTask {
  keys: MasterKeys;
  index: SharedIndex;
  /** folder of unfinished packs */
  directory: string;
  /** receives all new content too */
  forward: ForwardTask | null;
  taker: Pick<PackTaker, "style" | "waiting"> | null;
  /** `end`: one 64-bit word with the bytes in the file so far, of all threads */
  pages: { index: SharedIndex; file: number; end: SharedArrayBuffer } | null;
  /** limit of bytes for all threads, and one 64-bit word with the bytes so far; absent: no limit */
  bound?: { mostBytes: number; stored: SharedArrayBuffer };
}

/** Packs of one thread: complete ones, and at most one unfinished pack of each type. */
export interface ThreadPacks {
  packs: FinishedPack[];
  tails: PackTail[];
  /** unfinished packs for the other repository */
  forwardTails: PackTail[];
  spilled: Spilled;
}

/** Blobs of databases that the caller stores by pages: places in a file, and trees. */
export interface Spilled {
  blobs: { id: string; offset: number; length: number }[];
  trees: ExtraBlob[];
}

/** Opens a new file that has no name, so that a kill leaves nothing. */
export function newSpill(directory: string): number {
  const path = join(directory, `pages-${randomBytes(8).toString("hex")}`);
  const file = openSync(path, "wx+", 0o600);
  unlinkSync(path);
  return file;
}

/** A thread has finished a pack for the other repository, or for a taker: the main thread owns the file from then on. */
export type ForwardEvent = { forwarded: FinishedPack } | { stored: FinishedPack };

/** A thread waits while this many packs are not yet taken in. */
const MOST_WAITING = 8;

/** Unfinished packs of other threads. */
export type OtherTails = Pick<ThreadPacks, "tails" | "forwardTails">;
const NO_TAILS: OtherTails = { tails: [], forwardTails: [] };

/** A blob made by the main thread. */
export interface ExtraBlob {
  id: Uint8Array;
  type: "data" | "tree";
  bytes: Uint8Array;
}

/** Throws `no_space` if a scan would store more than its limit. */
export function requireWithin(bytes: number, mostBytes: number): void {
  if (bytes > mostBytes)
    throw new CairnError("no_space", `more than ${mostBytes} bytes would be stored`, {
      details: { most_bytes: mostBytes },
    });
}

/** Stores blobs that are neither in the index nor claimed by another thread, in packs of this thread. */
export class StoreSink {
  readonly #index: BlobIndex;
  readonly #task: StoreSinkTask;
  /** Writers of packs, each made with the first new blob of its type. */
  readonly #writers: { data?: PackWriter; tree?: PackWriter } = {};
  #packs: FinishedPack[] = [];
  readonly #forwarder: BlobForwarder | null;
  readonly #pages: BlobIndex | null;
  #spilled: Spilled = { blobs: [], trees: [] };
  /** True while content is stored that is not forwarded. */
  #stays = false;
  readonly #tell: ((event: ForwardEvent) => void) | undefined;

  /** `tell`: needed if the scan forwards, or has a taker. */
  constructor(task: StoreSinkTask, tell?: (event: ForwardEvent) => void) {
    this.#tell = tell;
    this.#index = BlobIndex.fromShared(task.index);
    this.#task = task;
    this.#pages = task.pages === null ? null : BlobIndex.fromShared(task.pages.index);
    this.#forwarder =
      task.forward === null ? null : new BlobForwarder(task.forward, (forwarded) => tell?.({ forwarded }));
  }

  /** True if the caller stores databases by pages. */
  get spills(): boolean {
    return this.#pages !== null;
  }

  #writer(type: "data" | "tree"): PackWriter {
    return (this.#writers[type] ??= this.#newWriter(type));
  }

  #newWriter(type: "data" | "tree"): PackWriter {
    const { keys, directory, taker } = this.#task;
    const forwarder = this.#forwarder;
    const isBound = this.#task.bound !== undefined;
    return new PackWriter({
      type,
      keys,
      directory,
      ...(taker === null ? { level: 1 } : writerOptions(taker.style, type)),
      onPack: (pack) => {
        if (taker !== null) return this.#handOver(pack, taker.waiting);
        this.#packs.push(pack);
        failpoint("stage.pack-complete");
      },
      ...(forwarder === null && !isBound
        ? {}
        : {
            onStored: (id, idOffset, stored) => {
              this.#count(stored.length);
              if (!this.#stays) forwarder?.add(type, id, idOffset, stored);
            },
          }),
    });
  }

  #count(bytes: number): void {
    const { bound } = this.#task;
    if (bound === undefined) return;
    const before = Atomics.add(new BigInt64Array(bound.stored), 0, BigInt(bytes));
    requireWithin(Number(before) + bytes, bound.mostBytes);
  }

  #handOver(pack: FinishedPack, shared: SharedArrayBuffer): void {
    const waiting = new Int32Array(shared);
    Atomics.add(waiting, 0, 1);
    this.#tell?.({ stored: pack });
    // The main thread must not wait: it takes the packs in itself.
    if (isMainThread) return;
    for (let count = Atomics.load(waiting, 0); count > MOST_WAITING; count = Atomics.load(waiting, 0))
      Atomics.wait(waiting, 0, count);
  }

  /** True if the id (32 bytes at `offset`) is stored already, or is being stored by another thread. */
  known(id: Uint8Array, offset: number): boolean {
    return this.#index.lookup(id, offset) >= 0;
  }

  /** Takes a blob unless it is known. `stays`: it is not forwarded. */
  add(
    type: "data" | "tree",
    { id, offset, stays = false }: { id: Uint8Array; offset: number; stays?: boolean },
    plain: Arena,
    start: number,
    length: number,
  ): void {
    if (stays && this.#pages !== null)
      return this.#spillBlob(type, id.subarray(offset, offset + 32), plain.bytes.subarray(start, start + length));
    if (!this.#index.claim(id, offset, blobTypeOf(type))) return;
    this.#stays = stays;
    this.#writer(type).add(id, plain, start, length, offset);
    this.#stays = false;
  }

  /** Claims nothing: content of other files with the same id is stored in any case. */
  #spillBlob(type: "data" | "tree", id: Uint8Array, bytes: Uint8Array): void {
    if (this.#pages!.lookup(id, 0, blobTypeOf(type)) >= 0) return;
    const { blobs, trees } = this.#spilled;
    if (type === "tree") return void trees.push({ id: new Uint8Array(id), type, bytes: new Uint8Array(bytes) });
    const { file, end } = this.#task.pages!;
    const offset = Number(Atomics.add(new BigInt64Array(end), 0, BigInt(bytes.length)));
    blobs.push({ id: Buffer.from(id).toString("hex"), offset, length: bytes.length });
    for (let at = 0; at < bytes.length;) at += writeSync(file, bytes, at, bytes.length - at, offset + at);
  }

  /** Hands over the complete packs, and the unfinished ones as tails unless they stay for `finish`. */
  takePacks(keepTails: boolean): ThreadPacks {
    const writers = keepTails ? [] : Object.values(this.#writers);
    const forwardTails = keepTails ? [] : (this.#forwarder?.takeTails() ?? []);
    return this.#taken(
      writers.flatMap((writer) => writer.takeTail() ?? []),
      forwardTails,
    );
  }

  /** Adds blobs of the main thread, takes other threads' tails in and completes the packs. */
  finish(blobs: readonly ExtraBlob[], { tails, forwardTails }: OtherTails = NO_TAILS): ThreadPacks {
    for (const { id, type, bytes } of blobs) this.add(type, { id, offset: 0 }, arenaOver(bytes), 0, bytes.length);
    for (const tail of tails) this.#writer(tail.type).appendTail(tail);
    for (const writer of Object.values(this.#writers)) writer.finish();
    this.#forwarder?.finish(forwardTails);
    return this.#taken([], []);
  }

  /** Gives up: removes all packs that were not handed over; `leavesPacks`: only the unfinished ones. */
  abort(leavesPacks: boolean): void {
    for (const writer of Object.values(this.#writers)) writer.abort();
    this.#forwarder?.abort();
    if (!leavesPacks) for (const pack of this.#packs) clearAway(pack.path);
  }

  #taken(tails: PackTail[], forwardTails: PackTail[]): ThreadPacks {
    const [packs, spilled] = [this.#packs, this.#spilled];
    [this.#packs, this.#spilled] = [[], { blobs: [], trees: [] }];
    return { packs, tails, forwardTails, spilled };
  }
}
