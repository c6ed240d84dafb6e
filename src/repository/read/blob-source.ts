import type { MasterKeys } from "../../crypto/seal.ts";
import { CairnError, toCairnError, tellsOfDamage } from "../../errors.ts";
import { decodeTree } from "../../formats/restic/tree.ts";
import { objectIdOf } from "../../ids.ts";
import { type Arena, arenaOver } from "../../native.ts";
import { newPacer } from "../../pacer.ts";
import { type BlobIndex, type BlobPlaceOf, type BlobType, TREE_BLOB } from "../index/blob-index.ts";
import { isInPieces } from "../packs/blob-decoder.ts";
import { BlobReader, type BlobPlace } from "../packs/blob-reader.ts";
import type { ReadTree } from "../trees/live.ts";
import { addWanted, NearPacks, packEnds, type PackFiles, type WantedRange } from "./near-packs.ts";
import type { ListTree } from "../trees/walk-trees.ts";

export interface BlobSourceOptions {
  readonly keys: MasterKeys;
  /** Says where blobs lie. Nobody else moves its entries. */
  readonly index: BlobIndex;
  /** Packs of this machine; of `NearPacks` that are not, what is read is brought first. */
  readonly packs: PackFiles;
  /** False: ids are compared by somebody else, who reads the same or what becomes of it. */
  readonly compares?: boolean;
  /** Bytes of far packs by name, each of which is then brought whole with its first tree. Absent: up to the last blob that is listed. */
  readonly sizes?: ReadonlyMap<string, number> | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Told once of each pack that is damaged or missing, and of which something is read from others. */
  readonly onElsewhere?: ((pack: string) => void) | undefined;
  /** Told once of each pack that is damaged, and of which something that was read is sound nowhere. */
  readonly onUnsound?: ((pack: string) => void) | undefined;
}

/** A blob that is damaged or missing where the index has it, and sound at another place. */
export interface Elsewhere {
  readonly place: BlobPlaceOf;
  /** The error at the place that the index has. */
  readonly error: CairnError;
}

type EachBlob = (index: number, arena: Arena, offset: number, length: number) => void;
type EachDamage = (index: number, error: CairnError) => void;

/** With a far pack of trees so much of others is brought that are read after it. */
const BYTES_AHEAD = 32 * 1024 * 1024;
const PACKS_AHEAD = 64;
/** So much is brought at once of what is proven, from far away. */
const BATCH_BYTES = 32 * 1024 * 1024;

/**
 * Reads blobs of a repository by their entries, wherever it lies; what is damaged or missing at one place is read at the next
 * one that the index has. One per thread. Errors: `damaged` for what is sound nowhere, and what keeps a pack from being read.
 */
export class BlobSource {
  readonly #options: BlobSourceOptions;
  readonly #index: BlobIndex;
  readonly #reader: BlobReader;
  /** Null where all packs are here. */
  readonly #far: NearPacks | null;
  readonly #elsewhere = new Map<number, Elsewhere>();
  readonly #told = new Set<string>();
  readonly #unsound = new Set<string>();
  /** Far packs that are not there, by name, with what was said of them. */
  readonly #missing = new Map<string, CairnError>();
  #ends: ReadonlyMap<string, number> | undefined;
  /** Trees that are in no pack, by id. */
  readonly #lent = new Map<string, Uint8Array>();

  constructor(options: BlobSourceOptions) {
    const { packs } = options;
    this.#options = options;
    this.#index = options.index;
    this.#far = packs instanceof NearPacks && !packs.isLocal ? packs : null;
    this.#reader = new BlobReader({ keys: options.keys, openPack: (pack) => packs.open(pack) });
    this.#ends = options.sizes;
    this.#far?.compareWith(options.index, options.keys);
  }

  get index(): BlobIndex {
    return this.#index;
  }

  /** Returns what was read so far from other places than those of the index, by entry. */
  get elsewhere(): ReadonlyMap<number, Elsewhere> {
    return this.#elsewhere;
  }

  /** Has `listTree` and whoever asks `lent` find a tree that is in no pack. */
  lend(id: string, tree: Uint8Array): void {
    this.#lent.set(id, tree);
  }

  /** Forgets one. */
  takeBack(id: string): void {
    this.#lent.delete(id);
  }

  /** The bytes of such a tree. */
  lent(id: Uint8Array): Uint8Array | undefined {
    return this.#lent.size === 0 ? undefined : this.#lent.get(objectIdOf(id));
  }

  /** A blob's plaintext out of packs that are here, where it was decoded: good until the next call. */
  view(entry: number, compares = this.#options.compares): Uint8Array {
    const place = this.#placeOf(entry, compares);
    try {
      return this.#reader.view(place);
    } catch (error) {
      return this.#viewElsewhere(entry, this.#damage(error));
    }
  }

  /** Returns a blob's plaintext in pieces, so that no large one is in memory. The caller uses them up before the next call. */
  pieces(entry: number, compares = this.#options.compares): Iterable<Uint8Array> {
    const read = (place: BlobPlace & { id: Uint8Array }): Iterable<Uint8Array> => this.#reader.pieces(place);
    try {
      return read(this.#placeOf(entry, compares));
    } catch (error) {
      return this.#readElsewhere(entry, this.#damage(error), read);
    }
  }

  /** Tells if `pieces` yields more than one. */
  isInPieces(entry: number): boolean {
    return isInPieces(this.#index.place(entry));
  }

  /** Returns an entry's plaintext in memory of its own; otherwise like `view`. */
  read(entry: number): Uint8Array {
    return this.own(this.view(entry));
  }

  /** Returns what was viewed last in memory of its own, without copying what is large. */
  own(plain: Uint8Array): Uint8Array {
    return this.#reader.handOver() ?? new Uint8Array(plain);
  }

  /** Returns the blob with this id likewise. Throws `damaged` also where the index does not know it. */
  readId(id: Uint8Array, type: BlobType): Uint8Array {
    const entry = this.#index.lookup(id, 0, type);
    if (entry >= 0) return this.read(entry);
    throw this.#unknown(id);
  }

  #unknown(id: Uint8Array): CairnError {
    return new CairnError("damaged", `the index does not know blob ${objectIdOf(id).slice(0, 12)}`);
  }

  /** A tree's plaintext in memory of its own. Far packs of trees are brought whole, since the neighbours of a tree follow. */
  readonly readTree: ReadTree = (entry, next) =>
    this.#far === null ? this.read(entry) : this.#brought(entry, next).then((plain) => this.own(plain));

  /** Returns a tree's plaintext where it was decoded, good until the next call. */
  readonly viewTree: ReadTree = (entry, next) => (this.#far === null ? this.view(entry) : this.#brought(entry, next));

  /** The nodes of a tree by its id; see `walkTrees`. */
  readonly listTree: ListTree = (id, next) => {
    const entryOf = (tree: Uint8Array): number => this.#index.lookup(tree, 0, TREE_BLOB);
    const lent = this.lent(id);
    if (lent !== undefined) return decodeTree(lent);
    const entry = entryOf(id);
    if (entry < 0) throw this.#unknown(id);
    const ahead = function* (): Generator<number> {
      for (const tree of next?.() ?? []) if (entryOf(tree) >= 0) yield entryOf(tree);
    };
    const read = this.readTree(entry, ahead);
    return read instanceof Uint8Array ? decodeTree(read) : read.then(decodeTree);
  };

  /** Any blob's plaintext in memory of its own; of a far pack nothing else is brought. */
  async readBlob(entry: number): Promise<Uint8Array> {
    return this.#far === null ? this.read(entry) : this.own(await this.#brought(entry, null));
  }

  /**
   * Reads many blobs of one pack that is here, sorted by offset. `each` gets every plaintext, which is good during the call;
   * those that are read from other packs come last. `onDamage` is told of one that is sound nowhere.
   */
  readWindow(
    entries: readonly number[],
    { each, onDamage, compares }: { each: EachBlob; onDamage: EachDamage; compares: (index: number) => boolean },
  ): void {
    const failed = new Map<number, CairnError>();
    const seen = new Uint8Array(entries.length);
    try {
      this.#reader.readWindow(
        entries.map((entry, at) => this.#placeOf(entry, compares(at))),
        (at, arena, offset, length) => {
          seen[at] = 1;
          each(at, arena, offset, length);
        },
        (at, error) => void failed.set(at, error),
      );
    } catch (error) {
      const known = toCairnError(error);
      if (known.code !== "damaged") throw error;
      // The pack cannot be opened.
      for (let at = 0; at < entries.length; at++) if (seen[at] === 0) failed.set(at, known);
    }
    for (const [at, error] of failed) {
      let plain: Uint8Array;
      try {
        plain = this.#viewElsewhere(entries[at]!, error);
      } catch (known) {
        if (known !== error) throw known;
        onDamage(at, error);
        continue;
      }
      each(at, arenaOver(plain), 0, plain.length);
    }
  }

  /**
   * Reads all of these, also at their other places where they are not sound at the first. Returns those that are sound nowhere.
   * What is brought from far away is dropped again.
   */
  async prove(entries: Iterable<number>): Promise<Set<number>> {
    const unsound = new Set<number>();
    const pace = newPacer(this.#options.signal);
    for (const batch of this.#batches(entries)) {
      const places = batch.map((entry) => this.#index.place(entry));
      await this.#bring(places);
      const failed: { entry: number; error: CairnError }[] = [];
      for (const [i, entry] of batch.entries()) {
        await pace();
        try {
          this.#reader.view({ ...places[i]!, id: this.#index.idOf(entry) });
        } catch (error) {
          failed.push({ entry, error: this.#damage(error) });
        }
      }
      const others = failed.flatMap(({ entry }) => this.#index.others(entry));
      await this.#bring(others);
      for (const { entry, error } of failed) {
        try {
          this.#viewElsewhere(entry, error);
        } catch (known) {
          if (known !== error) throw known;
          unsound.add(entry);
        }
      }
      for (const { pack } of [...places, ...others]) this.#far?.drop(objectIdOf(pack));
    }
    return unsound;
  }

  /** Closes all packs, and gives back what a large blob took. The source may be used again. */
  close(): void {
    this.#reader.close();
  }

  #placeOf(entry: number, compares = true): BlobPlace & { id: Uint8Array } {
    const place = this.#elsewhere.get(entry)?.place ?? this.#index.place(entry);
    return { ...place, id: this.#index.idOf(entry), isComparedLater: !compares };
  }

  /** The error of a place that is not sound; thrown is what says nothing of it. */
  #damage(error: unknown): CairnError {
    const known = toCairnError(error);
    if (!tellsOfDamage(known)) throw known;
    const missing = known.details?.["missing_pack"];
    if (typeof missing === "string") this.#missing.set(missing, known);
    return known;
  }

  /** Throws `error`, which tells of the place that the index has, where no other one that is here is sound. */
  #viewElsewhere(entry: number, error: CairnError): Uint8Array {
    return this.#readElsewhere(entry, error, (place) => this.#reader.view(place));
  }

  /** Returns what `read` returns of the first other place that is sound; throws `error` as `#viewElsewhere` does. */
  #readElsewhere<T>(entry: number, error: CairnError, read: (place: BlobPlace & { id: Uint8Array }) => T): T {
    for (const place of this.#index.others(entry)) {
      try {
        const plain = read({ ...place, id: this.#index.idOf(entry) });
        this.#take(entry, { place, error });
        return plain;
      } catch (other) {
        this.#damage(other);
      }
    }
    const pack = objectIdOf(this.#index.place(entry).pack);
    if (!this.#unsound.has(pack)) this.#options.onUnsound?.(pack);
    this.#unsound.add(pack);
    throw error;
  }

  #take(entry: number, found: Elsewhere): void {
    if (!this.#elsewhere.has(entry)) this.#elsewhere.set(entry, found);
    const pack = objectIdOf(this.#index.place(entry).pack);
    if (this.#told.has(pack)) return;
    this.#told.add(pack);
    this.#options.onElsewhere?.(pack);
  }

  /** Brings a blob from far away, of a tree (`next`) its whole pack and others that are read after it, and views it. */
  async #brought(entry: number, next: Parameters<ReadTree>[1] | null): Promise<Uint8Array> {
    let failure: CairnError | null = null;
    for (const place of [this.#placeOf(entry, this.#options.compares), ...this.#index.others(entry)]) {
      try {
        const missing = this.#missing.get(objectIdOf(place.pack));
        if (missing !== undefined) throw missing;
        await (next === null ? this.#fetch([rangeOf(place)]) : this.#fetchTree(place, next));
        const plain = this.#reader.view({ ...place, id: this.#index.idOf(entry) });
        if (failure !== null) this.#take(entry, { place: { ...this.#index.place(entry), ...place }, error: failure });
        return plain;
      } catch (error) {
        const known = this.#damage(error);
        failure ??= known;
      }
    }
    throw failure!;
  }

  async #fetchTree(place: BlobPlace, next: () => Iterable<number> = () => []): Promise<void> {
    const own = this.#whole(place.pack, place.offset + place.length);
    if (this.#far!.has(own)) return;
    // What is wrong with another pack is told to who reads it.
    await this.#fetch([own, ...this.#ahead(own.pack, next)], true);
    try {
      await this.#fetch([own]);
    } catch (error) {
      const known = toCairnError(error);
      // The pack may be cut behind it.
      if (known.code !== "damaged" || known.details?.["missing_pack"] !== undefined) throw known;
      await this.#fetch([rangeOf(place)]);
    }
  }

  /** Those of the packs that are not here, each once. */
  #ahead(own: string, next: () => Iterable<number>): WantedRange[] {
    const ranges = new Map<string, WantedRange>();
    let bytes = 0;
    for (const entry of next()) {
      const range = this.#whole(this.#index.place(entry).pack);
      if (range.pack === own || ranges.has(range.pack) || this.#far!.has(range)) continue;
      if ((bytes += range.length) > BYTES_AHEAD || ranges.size === PACKS_AHEAD) break;
      ranges.set(range.pack, range);
    }
    return [...ranges.values()];
  }

  #whole(id: Uint8Array, least = 0): WantedRange {
    const pack = objectIdOf(id);
    this.#ends ??= endsOf(this.#index);
    return { pack, offset: 0, length: Math.max(this.#ends.get(pack) ?? 0, least) };
  }

  /** A pack that is brought lies in another file than one of its name that was dropped. */
  async #fetch(ranges: readonly WantedRange[], lenient = false): Promise<void> {
    const wanted = ranges.filter((range) => !this.#far!.has(range));
    if (wanted.length === 0) return;
    this.#reader.close();
    await this.#far!.fetch(wanted, { lenient, signal: this.#options.signal });
  }

  /** In few requests; what is not there is met when it is read. */
  async #bring(places: readonly BlobPlaceOf[]): Promise<void> {
    if (this.#far === null || places.length === 0) return;
    const wanted: WantedRange[] = [];
    for (const place of places.toSorted((a, b) => Buffer.compare(a.pack, b.pack) || a.offset - b.offset))
      addWanted(wanted, rangeOf(place));
    await this.#fetch(wanted, true);
  }

  *#batches(entries: Iterable<number>): Generator<number[]> {
    const { lengthOf } = this.#index.table;
    let batch: number[] = [];
    let bytes = 0;
    for (const entry of entries) {
      batch.push(entry);
      bytes += lengthOf[entry]!;
      if (bytes < BATCH_BYTES) continue;
      yield batch;
      batch = [];
      bytes = 0;
    }
    yield batch;
  }
}

function rangeOf({ pack, offset, length }: Pick<BlobPlace, "pack" | "offset" | "length">): WantedRange {
  return { pack: objectIdOf(pack), offset, length };
}

/** Returns, by a pack's name, where the last blob ends that any entry has a place for in it. */
function endsOf(index: BlobIndex): ReadonlyMap<string, number> {
  const ends = new Map<string, number>();
  for (const [number, end] of packEnds(index).entries()) ends.set(objectIdOf(index.table.packId(number)), end);
  for (const entry of index.inSeveralPlaces())
    for (const { pack, offset, length } of index.others(entry)) {
      const name = objectIdOf(pack);
      ends.set(name, Math.max(ends.get(name) ?? 0, offset + length));
    }
  return ends;
}
