import fs from "node:fs";
import type { MasterKeys } from "../../crypto/seal.ts";
import { type Arena, arenaOver } from "../../native.ts";
import { BlobIndex, DATA_BLOB, type SharedIndex, TREE_BLOB } from "../../repository/blob-index.ts";
import type { CompressionLevel } from "../../repository/compression.ts";
import { type FinishedPack, type PackTail, PackWriter } from "../../repository/pack-writer.ts";
import type { ContentSink } from "./task.ts";

export interface StoreSinkTask {
  keys: MasterKeys;
  index: SharedIndex;
  /** where unfinished packs lie */
  directory: string;
  level: CompressionLevel;
}

/** What one thread has packed: complete packs, and at most one unfinished pack of each type. */
export interface ThreadPacks {
  packs: FinishedPack[];
  tails: PackTail[];
}

/** A blob that the main thread made. */
export interface ExtraBlob {
  id: Uint8Array;
  type: "data" | "tree";
  bytes: Uint8Array;
}

/** Stores blobs that are neither in the index nor claimed by another thread, in packs of this thread. */
export class StoreSink implements ContentSink {
  readonly #index: BlobIndex;
  readonly #task: StoreSinkTask;
  /** Made when the first new blob of their type comes. */
  #data: PackWriter | undefined;
  #tree: PackWriter | undefined;
  #packs: FinishedPack[] = [];

  constructor(task: StoreSinkTask) {
    this.#index = BlobIndex.fromShared(task.index);
    this.#task = task;
  }

  #dataWriter(): PackWriter {
    this.#data ??= this.#newWriter("data");
    return this.#data;
  }

  #treeWriter(): PackWriter {
    this.#tree ??= this.#newWriter("tree");
    return this.#tree;
  }

  #newWriter(type: "data" | "tree"): PackWriter {
    const { keys, directory, level } = this.#task;
    return new PackWriter({ type, keys, directory, level, onPack: (pack) => void this.#packs.push(pack) });
  }

  known(id: Uint8Array, offset: number): boolean {
    return this.#index.lookup(id, offset) >= 0;
  }

  data(id: Uint8Array, offset: number, plain: Arena, start: number, length: number): void {
    if (this.#index.claim(id, offset, DATA_BLOB)) this.#dataWriter().add(id, plain, start, length, offset);
  }

  tree(id: Uint8Array, offset: number, plain: Arena, start: number, length: number): void {
    if (this.#index.claim(id, offset, TREE_BLOB)) this.#treeWriter().add(id, plain, start, length, offset);
  }

  /** Hands over what is complete, and the unfinished packs as tails unless they stay for `finish`. */
  takePacks(keepTails: boolean): ThreadPacks {
    const writers = keepTails ? [] : [this.#data, this.#tree];
    return this.#taken(writers.flatMap((writer) => writer?.takeTail() ?? []));
  }

  /** Adds blobs of the main thread, takes other threads' tails in and completes the packs. */
  finish(tails: readonly PackTail[], blobs: readonly ExtraBlob[]): ThreadPacks {
    for (const { id, type, bytes } of blobs) this[type](id, 0, arenaOver(bytes), 0, bytes.length);
    for (const tail of tails) (tail.type === "data" ? this.#dataWriter() : this.#treeWriter()).appendTail(tail);
    this.#data?.finish();
    this.#tree?.finish();
    return this.#taken([]);
  }

  /** Gives up: removes what was not handed over. */
  abort(): void {
    this.#data?.abort();
    this.#tree?.abort();
    for (const pack of this.#packs) fs.rmSync(pack.path, { force: true });
  }

  #taken(tails: PackTail[]): ThreadPacks {
    const packs = this.#packs;
    this.#packs = [];
    return { packs, tails };
  }
}
