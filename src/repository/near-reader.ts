import { objectIdOf } from "../ids.ts";
import type { BlobIndex } from "./blob-index.ts";
import { type BlobPlace, BlobReader } from "./blob-reader.ts";
import type { ReadTree } from "./live.ts";
import { type NearPacks, packEnds } from "./near-packs.ts";
import type { Repository } from "./repository.ts";

export interface NearReaderOptions {
  repository: Repository;
  near: NearPacks;
  /** How much of a pack is brought for the first tree that is wanted of it, in bytes by the pack's name; see `treePackEnds`. */
  ends: ReadonlyMap<string, number>;
  signal?: AbortSignal | undefined;
}

/** Where the last blob of each pack ends; empty where packs are local, for nothing is brought there. */
export function treePackEnds(near: NearPacks, index: BlobIndex): Map<string, number> {
  const ends = new Map<string, number>();
  if (near.isLocal) return ends;
  for (const [pack, end] of packEnds(index).entries()) ends.set(objectIdOf(index.table.packId(pack)), end);
  return ends;
}

/**
 * Reads single blobs of a repository wherever it lies. Where packs are not local, a pack of trees is brought whole with
 * the first of them, since its neighbours follow; of other packs only the blob itself.
 */
export class NearReader {
  readonly #options: NearReaderOptions;
  readonly #reader: BlobReader;

  constructor(options: NearReaderOptions) {
    const { repository, near } = options;
    this.#options = options;
    this.#reader = new BlobReader({ keys: repository.keys, openPack: (pack) => near.open(pack) });
  }

  /** A tree's plaintext; a fresh copy. `damaged` when it is not there or not what was written. */
  readonly readTree: ReadTree = (place) => {
    if (this.#options.near.isLocal) return this.#reader.read(place);
    return this.#fetchTree(place).then(() => this.#reader.read(place));
  };

  /** The same where it was decoded, good until the next read: a walk over many large trees leaves no copies behind. */
  readonly viewTree: ReadTree = (place) => {
    if (this.#options.near.isLocal) return this.#reader.view(place);
    return this.#fetchTree(place).then(() => this.#reader.view(place));
  };

  /** Any blob's plaintext; a fresh copy. */
  async read(place: BlobPlace): Promise<Uint8Array> {
    await this.#fetch(place, { offset: place.offset, length: place.length });
    return this.#reader.read(place);
  }

  async #fetchTree(place: BlobPlace): Promise<void> {
    const end = Math.max(this.#options.ends.get(objectIdOf(place.pack)) ?? 0, place.offset + place.length);
    return this.#fetch(place, { offset: 0, length: end });
  }

  async #fetch(place: BlobPlace, range: { offset: number; length: number }): Promise<void> {
    const { near, signal } = this.#options;
    await near.fetch([{ pack: objectIdOf(place.pack), ...range }], { signal });
  }

  close(): void {
    this.#reader.close();
  }
}
