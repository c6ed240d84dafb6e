import { toCairnError } from "../errors.ts";
import { objectIdOf } from "../ids.ts";
import type { BlobIndex } from "./blob-index.ts";
import { type BlobPlace, BlobReader } from "./blob-reader.ts";
import type { ReadTree, TreePlace } from "./live.ts";
import { type NearPacks, packEnds, type WantedRange } from "./near-packs.ts";
import type { OtherCopies } from "./other-copies.ts";
import type { Repository } from "./repository.ts";

export interface NearReaderOptions {
  repository: Repository;
  near: NearPacks;
  /** How much of a pack is brought for the first tree that is wanted of it, in bytes by the pack's name; see `treePackEnds`. */
  ends: ReadonlyMap<string, number>;
  /** Where that is looked for which is damaged; absent: nowhere. */
  copies?: OtherCopies | undefined;
  signal?: AbortSignal | undefined;
}

/** With a pack of trees that has to be brought so much of others is brought that are read after it. */
const BYTES_AHEAD = 32 * 1024 * 1024;
const PACKS_AHEAD = 64;

/** Where the last blob of each pack ends; empty where packs are local, for nothing is brought there. */
export function treePackEnds(near: NearPacks, index: BlobIndex): Map<string, number> {
  const ends = new Map<string, number>();
  if (near.isLocal) return ends;
  for (const [pack, end] of packEnds(index).entries()) ends.set(objectIdOf(index.table.packId(pack)), end);
  return ends;
}

/**
 * Reads single blobs of a repository wherever it lies. Where packs are not local, a pack of trees is brought whole with
 * the first of them, since its neighbours follow, and with it others that are said to be read next: of a snapshot that was
 * made in many steps each pack is a few kilobytes and a round trip. Of other packs only the blob itself.
 */
export class NearReader {
  readonly #options: NearReaderOptions;
  readonly #reader: BlobReader;

  constructor(options: NearReaderOptions) {
    const { repository, near } = options;
    this.#options = options;
    this.#reader = new BlobReader({ keys: repository.keys, openPack: (pack) => near.open(pack) });
  }

  /** A tree's plaintext; a fresh copy. `damaged` when it is not there or not what was written, and no copy of it is. */
  readonly readTree: ReadTree = (place, next) => {
    if (!this.#options.near.isLocal) return this.#farTree(place, next, (there) => this.#reader.read(there));
    const { copies } = this.#options;
    if (copies === undefined) return this.#reader.read(place);
    try {
      return this.#reader.read(copies.placeOf(place));
    } catch (error) {
      return copies.read(place, error);
    }
  };

  /** The same where it was decoded, good until the next read: a walk over many large trees leaves no copies behind. */
  readonly viewTree: ReadTree = (place, next) => {
    if (!this.#options.near.isLocal) return this.#farTree(place, next, (there) => this.#reader.view(there));
    const { copies } = this.#options;
    if (copies === undefined) return this.#reader.view(place);
    try {
      return this.#reader.view(copies.placeOf(place));
    } catch (error) {
      return copies.read(place, error);
    }
  };

  /** Any blob's plaintext; a fresh copy. */
  async read(place: BlobPlace): Promise<Uint8Array> {
    const { copies } = this.#options;
    try {
      const there = copies?.placeOf(place) ?? place;
      await this.#fetch(there, { offset: there.offset, length: there.length });
      return this.#reader.read(there);
    } catch (error) {
      if (copies === undefined) throw error;
      return copies.read(place, error);
    }
  }

  async #farTree(
    place: TreePlace,
    next: Parameters<ReadTree>[1],
    read: (place: TreePlace) => Uint8Array,
  ): Promise<Uint8Array> {
    const { copies } = this.#options;
    try {
      const there = copies?.placeOf(place) ?? place;
      await this.#fetchTree(there, next);
      return read(there);
    } catch (error) {
      if (copies === undefined) throw error;
      return copies.read(place, error);
    }
  }

  async #fetchTree(place: BlobPlace, next: () => Iterable<Uint8Array> = () => []): Promise<void> {
    const { near, signal } = this.#options;
    const own = this.#whole(place.pack, place.offset + place.length);
    if (near.has(own)) return;
    // What is wrong with another pack is told to who reads it.
    await near.fetch([own, ...this.#ahead(own.pack, next)], { signal, lenient: true });
    try {
      await near.fetch([own], { signal });
    } catch (error) {
      const known = toCairnError(error);
      // The pack may be cut behind it.
      if (known.code !== "damaged" || known.details?.["missing_pack"] !== undefined) throw known;
      await near.fetch([{ pack: own.pack, offset: place.offset, length: place.length }], { signal });
    }
  }

  /** Those of the packs that are not here, each once. */
  #ahead(own: string, next: () => Iterable<Uint8Array>): WantedRange[] {
    const ranges = new Map<string, WantedRange>();
    let bytes = 0;
    for (const pack of next()) {
      const range = this.#whole(pack);
      if (range.pack === own || ranges.has(range.pack) || this.#options.near.has(range)) continue;
      if ((bytes += range.length) > BYTES_AHEAD || ranges.size === PACKS_AHEAD) break;
      ranges.set(range.pack, range);
    }
    return [...ranges.values()];
  }

  #whole(id: Uint8Array, least = 0): WantedRange {
    const pack = objectIdOf(id);
    return { pack, offset: 0, length: Math.max(this.#options.ends.get(pack) ?? 0, least) };
  }

  async #fetch(place: BlobPlace, range: { offset: number; length: number }): Promise<void> {
    const { near, signal } = this.#options;
    await near.fetch([{ pack: objectIdOf(place.pack), ...range }], { signal });
  }

  close(): void {
    this.#reader.close();
    this.#options.copies?.close();
  }
}
