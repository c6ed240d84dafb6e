import { objectIdOf } from "../ids.ts";
import type { BlobIndex } from "./blob-index.ts";
import { type BlobPlace, BlobReader } from "./blob-reader.ts";
import type { ReadTree } from "./live.ts";
import { type NearPacks, packEnds } from "./near-packs.ts";
import type { Repository } from "./repository.ts";

export interface NearReaderOptions {
  repository: Repository;
  near: NearPacks;
  index: BlobIndex;
  signal?: AbortSignal | undefined;
}

/** Reads single blobs of a repository wherever it lies; a pack that is not local is fetched when its first blob is wanted. */
export class NearReader {
  readonly #near: NearPacks;
  readonly #reader: BlobReader;
  readonly #signal: AbortSignal | undefined;
  /** Where the last blob of each pack ends, by the pack's name; empty for a local repository. */
  readonly #ends = new Map<string, number>();

  constructor(options: NearReaderOptions) {
    const { repository, near, index } = options;
    this.#near = near;
    this.#signal = options.signal;
    this.#reader = new BlobReader({ keys: repository.keys, openPack: (pack) => near.open(pack) });
    if (near.isLocal) return;
    for (const [pack, end] of packEnds(index).entries()) this.#ends.set(objectIdOf(index.table.packId(pack)), end);
  }

  /** A blob's plaintext; a fresh copy. `damaged` when it is not there or not what was written. */
  read(place: BlobPlace): Uint8Array | Promise<Uint8Array> {
    return this.#near.isLocal ? this.#reader.read(place) : this.#fetched(place);
  }

  readonly readTree: ReadTree = (place) => this.read(place);

  async #fetched(place: BlobPlace): Promise<Uint8Array> {
    const pack = objectIdOf(place.pack);
    const length = Math.max(this.#ends.get(pack) ?? 0, place.offset + place.length);
    await this.#near.fetch([{ pack, offset: 0, length }], { signal: this.#signal });
    return this.#reader.read(place);
  }

  close(): void {
    this.#reader.close();
  }
}
