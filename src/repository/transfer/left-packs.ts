import type { MasterKeys } from "../../crypto/seal.ts";
import type { BlobIndex } from "../index/blob-index.ts";
import { EntriesByPack } from "../index/entries-by-pack.ts";
import { BlobReader } from "../packs/blob-reader.ts";
import type { ByteRange } from "../storage/storage.ts";
import { openRegular } from "../../fs/regular-file.ts";

export interface LeftPacksOptions {
  readonly keys: MasterKeys;
  readonly index: BlobIndex;
  /** Names of the packs that an earlier run left. */
  readonly names: ReadonlySet<string>;
  /** Moves a pack to a path; false if the pack is gone. */
  take(pack: string, to: string): boolean;
}

/** Packs, whole or in part, that an interrupted run had fetched. Only blobs that match the index are used. */
export class LeftPacks {
  readonly #options: LeftPacksOptions;
  #entries: EntriesByPack | null = null;

  constructor(options: LeftPacksOptions) {
    this.#options = options;
  }

  /** Moves a pack to a path. Returns the ranges of its sound blobs, in order; none if the pack is gone. */
  take(pack: string, to: string): ByteRange[] {
    const { names, take, keys, index } = this.#options;
    if (!names.has(pack) || !take(pack, to)) return [];
    this.#entries ??= new EntriesByPack(index);
    const places = Array.from(this.#entries.of(pack), (entry) => ({ ...index.place(entry), id: index.idOf(entry) }));
    places.sort((a, b) => a.offset - b.offset);
    const sound: ByteRange[] = [];
    const reader = new BlobReader({ keys, openPack: () => openRegular(to) });
    try {
      const each = (at: number): void => void sound.push({ offset: places[at]!.offset, length: places[at]!.length });
      reader.readWindow(places, each, () => undefined);
    } finally {
      reader.close();
    }
    return sound;
  }
}
