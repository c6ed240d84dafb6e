import { objectIdOf } from "../ids.ts";
import { newPacer } from "../pacer.ts";
import type { BlobIndex } from "./blob-index.ts";
import { EntrySet } from "./entry-set.ts";
import type { LiveSet } from "./live.ts";
import { nearPacksIn } from "./near-packs.ts";
import { OtherCopies } from "./other-copies.ts";
import type { WorkDirectory } from "./pack-copy.ts";
import type { Repository } from "./repository.ts";
import { concurrently } from "./storage/concurrently.ts";
import { headerToDrop } from "./unindexed-packs.ts";

/** Packs in no index that are asked for at once what lies in them: each answer of a far storage takes its time. */
const LOOKS_AT_ONCE = 16;

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
  live: LiveSet;
  duplicates: readonly Duplicate[];
  /** See `SweepOptions`. */
  work: WorkDirectory | undefined;
  signal: AbortSignal | undefined;
}

/** What a plan would have go, by names of packs. */
interface Going {
  readonly packs: ReadonlySet<string>;
  /** Those of them of which what is needed is proven when it is copied. */
  readonly copied: ReadonlySet<string>;
  readonly unindexed: readonly { name: string; size: number }[];
}

/**
 * Proves what stays of blobs that are stored more than once, before others of their copies go: what an index lists may be
 * damaged, and the copy that goes may be the only sound one.
 */
export class KeptCopies {
  /** Names of packs with copies of blobs of which none that an index lists is sound. */
  readonly unsound = new Set<string>();
  /** Names of packs in no index that this user may not look into. */
  readonly closed = new Set<string>();
  readonly #repository: Repository;
  readonly #options: KeptCopiesOptions;
  readonly #proven: EntrySet;
  /** By names of packs in no index: entries of what is needed and in them too. */
  readonly #beside = new Map<string, Uint32Array>();

  constructor(repository: Repository, options: KeptCopiesOptions) {
    this.#repository = repository;
    this.#options = options;
    this.#proven = new EntrySet(options.index.count);
  }

  /**
   * To be called again until it is false. True where other packs are to go than these: the index has sound copies now, or
   * more packs are unsound or closed.
   */
  async change(going: Going): Promise<boolean> {
    const [unsound, closed] = [this.unsound.size, this.closed.size];
    await this.#lookInto(going.unindexed);
    const entries = this.#toProve(going);
    if (entries.length === 0) return this.closed.size > closed;
    const { index, duplicates, work, signal } = this.#options;
    const near = nearPacksIn(this.#repository.storage, work, "kept");
    const copies = new OtherCopies({ repository: this.#repository, index, near, signal, drops: true });
    try {
      await copies.prove(entries);
    } finally {
      copies.close();
    }
    for (const entry of entries) this.#proven.add(entry);
    for (const entry of copies.unsound) this.unsound.add(objectIdOf(index.place(entry).pack));
    for (const { entry, pack, was } of duplicates) {
      if (!copies.unsound.has(entry)) continue;
      this.unsound.add(pack);
      this.unsound.add(objectIdOf(index.table.packId(was)));
    }
    return copies.settle() || this.unsound.size > unsound || this.closed.size > closed;
  }

  async #lookInto(packs: Going["unindexed"]): Promise<void> {
    const left = packs.filter(({ name }) => !this.#beside.has(name));
    const pace = newPacer(this.#options.signal);
    await concurrently(left.length, LOOKS_AT_ONCE, async (at) => {
      await pace();
      await this.#look(left[at]!.name, left[at]!.size);
    });
  }

  async #look(name: string, size: number): Promise<void> {
    const { index, live } = this.#options;
    const blobs = await headerToDrop(this.#repository, name, size);
    if (blobs === "closed") this.closed.add(name);
    const entries = blobs === "closed" ? [] : blobs.map((blob) => index.entryOf(blob));
    this.#beside.set(name, Uint32Array.from(entries.filter((entry) => entry >= 0 && live.has(entry))));
  }

  #toProve({ packs: going, copied, unindexed }: Going): number[] {
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
    for (const { name } of unindexed)
      for (const entry of this.#beside.get(name)!) {
        if (copied.has(names[table.packOf[entry]!]!) || this.#proven.has(entry) || !seen.add(entry)) continue;
        entries.push(entry);
      }
    return entries;
  }
}
