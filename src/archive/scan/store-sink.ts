import type { MasterKeys } from "../../crypto/seal.ts";
import { type Arena, arenaOver } from "../../native.ts";
import { BlobIndex, DATA_BLOB, type SharedIndex, TREE_BLOB } from "../../repository/index/blob-index.ts";
import type { CompressionLevel } from "../../repository/packs/compression.ts";
import { BlobForwarder, type ForwardTarget, type ForwardTask } from "../../repository/transfer/forward.ts";
import { type FinishedPack, type PackTail, PackWriter } from "../../repository/packs/pack-writer.ts";
import type { ContentSink } from "./task.ts";
import { clearAway } from "../../fs/remove-all.ts";

/** A store that a scan puts new content into. */
export interface ScanStore {
  keys: MasterKeys;
  index: BlobIndex;
  directory: string;
  level: CompressionLevel;
  /** where everything new goes too */
  forward?: ForwardTarget | undefined;
}

export interface StoreSinkTask {
  keys: MasterKeys;
  index: SharedIndex;
  /** where unfinished packs lie */
  directory: string;
  level: CompressionLevel;
  /** where everything new goes too */
  forward: ForwardTask | null;
}

/** Packs of one thread: complete ones, and at most one unfinished pack of each type. */
export interface ThreadPacks {
  packs: FinishedPack[];
  tails: PackTail[];
  /** unfinished packs for the other repository */
  forwardTails: PackTail[];
}

/** A thread has finished a pack for the other repository: the file is the main thread's from then on. */
export interface ForwardEvent {
  forwarded: FinishedPack;
}

/** Unfinished packs of other threads. */
export type OtherTails = Pick<ThreadPacks, "tails" | "forwardTails">;
const NO_TAILS: OtherTails = { tails: [], forwardTails: [] };

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
  readonly #forwarder: BlobForwarder | null;

  /** `tell`: wanted where it forwards */
  constructor(task: StoreSinkTask, tell?: (event: ForwardEvent) => void) {
    this.#index = BlobIndex.fromShared(task.index);
    this.#task = task;
    this.#forwarder =
      task.forward === null ? null : new BlobForwarder(task.forward, (forwarded) => tell?.({ forwarded }));
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
    const forwarder = this.#forwarder;
    return new PackWriter({
      type,
      keys,
      directory,
      level,
      onPack: (pack) => void this.#packs.push(pack),
      ...(forwarder === null ? {} : { onStored: (id, idOffset, stored) => forwarder.add(type, id, idOffset, stored) }),
    });
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
    const forwardTails = keepTails ? [] : (this.#forwarder?.takeTails() ?? []);
    return this.#taken(
      writers.flatMap((writer) => writer?.takeTail() ?? []),
      forwardTails,
    );
  }

  /** Adds blobs of the main thread, takes other threads' tails in and completes the packs. */
  finish(blobs: readonly ExtraBlob[], { tails, forwardTails }: OtherTails = NO_TAILS): ThreadPacks {
    for (const { id, type, bytes } of blobs) this[type](id, 0, arenaOver(bytes), 0, bytes.length);
    for (const tail of tails) (tail.type === "data" ? this.#dataWriter() : this.#treeWriter()).appendTail(tail);
    this.#data?.finish();
    this.#tree?.finish();
    this.#forwarder?.finish(forwardTails);
    return this.#taken([], []);
  }

  /** Gives up: removes what was not handed over. */
  abort(): void {
    this.#data?.abort();
    this.#tree?.abort();
    this.#forwarder?.abort();
    for (const pack of this.#packs) clearAway(pack.path);
  }

  #taken(tails: PackTail[], forwardTails: PackTail[]): ThreadPacks {
    const packs = this.#packs;
    this.#packs = [];
    return { packs, tails, forwardTails };
  }
}
