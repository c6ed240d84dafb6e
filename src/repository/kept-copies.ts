import { objectIdOf } from "../ids.ts";
import type { BlobIndex } from "./blob-index.ts";
import { EntrySet } from "./entry-set.ts";
import { nearPacksIn } from "./near-packs.ts";
import { OtherCopies } from "./other-copies.ts";
import type { WorkDirectory } from "./pack-copy.ts";
import type { Repository } from "./repository.ts";

/** A needed blob that a pack holds, beside the one that the index had it in. */
export interface Duplicate {
  readonly entry: number;
  /** Its name. */
  readonly pack: string;
  /** Number of that one in the index: names of their own would take more than all else. */
  readonly was: number;
}

export interface KeptCopiesOptions {
  index: BlobIndex;
  duplicates: readonly Duplicate[];
  /** See `SweepOptions`. */
  work: WorkDirectory | undefined;
  signal: AbortSignal | undefined;
}

/**
 * Proves what stays of blobs that are stored more than once, before others of their copies go: what an index lists may be
 * damaged, and the copy that goes may be the only sound one.
 */
export class KeptCopies {
  /** Names of packs with copies of blobs of which none is sound. */
  readonly unsound = new Set<string>();
  readonly #repository: Repository;
  readonly #options: KeptCopiesOptions;
  readonly #proven: EntrySet;

  constructor(repository: Repository, options: KeptCopiesOptions) {
    this.#repository = repository;
    this.#options = options;
    this.#proven = new EntrySet(options.index.count);
  }

  /**
   * To be called again until it is false. True where other packs are to go than these: the index has sound copies now, or
   * more packs are unsound. `copied`: those of the packs that go of which what is needed is proven when it is copied.
   */
  async change(going: ReadonlySet<string>, copied: ReadonlySet<string>): Promise<boolean> {
    const entries = this.#toProve(going, copied);
    if (entries.length === 0) return false;
    const { index, duplicates, work, signal } = this.#options;
    const near = nearPacksIn(this.#repository.storage, work, "kept");
    const copies = new OtherCopies({ repository: this.#repository, index, near, signal, drops: true });
    try {
      await copies.seek(entries);
    } finally {
      copies.close();
    }
    for (const entry of entries) this.#proven.add(entry);
    const before = this.unsound.size;
    for (const { entry, pack, was } of duplicates) {
      if (!copies.unsound.has(entry)) continue;
      this.unsound.add(pack);
      this.unsound.add(objectIdOf(index.table.packId(was)));
    }
    return copies.settle() || this.unsound.size > before;
  }

  #toProve(going: ReadonlySet<string>, copied: ReadonlySet<string>): number[] {
    const { duplicates, index } = this.#options;
    const { table } = index;
    const names = Array.from({ length: table.packCount }, (_, pack) => objectIdOf(table.packId(pack)));
    const seen = new EntrySet(index.count);
    const entries: number[] = [];
    for (const { entry, pack, was } of duplicates) {
      const kept = names[table.packOf[entry]!]!;
      if (copied.has(kept) || this.#proven.has(entry) || seen.has(entry)) continue;
      if (![pack, names[was]!].some((name) => name !== kept && going.has(name))) continue;
      seen.add(entry);
      entries.push(entry);
    }
    return entries;
  }
}
