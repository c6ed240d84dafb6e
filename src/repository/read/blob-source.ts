import type { MasterKeys } from "../../crypto/seal.ts";
import { CairnError, toCairnError, tellsOfDamage } from "../../errors.ts";
import { decodeTree } from "../../formats/restic/tree.ts";
import { objectIdOf } from "../../ids.ts";
import { type Arena, arenaOver } from "../../native.ts";
import { newPacer } from "../../pacer.ts";
import { type BlobIndex, type BlobPlaceOf, type BlobType, DERIVED_PACK, TREE_BLOB } from "../index/blob-index.ts";
import { isInPieces } from "../packs/blob-decoder.ts";
import { BlobReader, type BlobPlace } from "../packs/blob-reader.ts";
import type { ReadTree } from "../trees/live.ts";
import { DerivedBlobs, type DerivedContent } from "./derived-blobs.ts";
import { addWanted, NearPacks, packEnds, type PackFiles, type WantedRange } from "./near-packs.ts";
import type { ListTree } from "../trees/walk-trees.ts";

/**
 * Called once for each damaged or missing pack with a blob that was read from another pack (`isElsewhere`), and once for
 * each with a blob that is sound nowhere.
 */
export type OnDamagedPack = (pack: string, isElsewhere: boolean) => void;

export interface BlobSourceOptions {
  readonly keys: MasterKeys;
  /** The places of blobs. No other code may move its entries meanwhile. */
  readonly index: BlobIndex;
  /** The pack files. Blobs of a remote `NearPacks` are fetched before they are read. */
  readonly packs: PackFiles;
  /** False: the caller compares the plaintexts with their ids. */
  readonly compares?: boolean;
  /**
   * Sizes of remote packs, by name: the first tree of a pack fetches the whole pack. Absent: the pack up to its last
   * indexed blob.
   */
  readonly sizes?: ReadonlyMap<string, number> | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onDamagedPack?: OnDamagedPack | undefined;
  /** Blobs that the index lists under `DERIVED_PACK`. */
  readonly derived?: DerivedContent | null | undefined;
  /** Reads the same packs and stays open; default: a reader of its own. */
  readonly readsWith?: BlobSource | undefined;
}

/** A blob that is damaged or missing at the place in the index, but sound at another place. */
export interface Elsewhere {
  readonly place: BlobPlaceOf;
  /** The error at the place in the index. */
  readonly error: CairnError;
}

type EachBlob = (index: number, arena: Arena, offset: number, length: number) => void;
type EachDamage = (index: number, error: CairnError) => void;

/** The most bytes of further tree packs that are fetched ahead, together with the wanted pack. */
const BYTES_AHEAD = 32 * 1024 * 1024;
const PACKS_AHEAD = 64;
/** Bytes that `prove` fetches at once from a remote storage. */
const BATCH_BYTES = 32 * 1024 * 1024;

/**
 * Reads blobs of a repository by their entries. If a blob is damaged or missing at one place, reads the next place that
 * the index has. One per thread. Errors: `damaged` if no place is sound, and errors of opening packs.
 */
export class BlobSource {
  readonly #options: BlobSourceOptions;
  readonly #index: BlobIndex;
  readonly #reader: BlobReader;
  /** Null if all packs are local. */
  readonly #far: NearPacks | null;
  readonly #elsewhere = new Map<number, Elsewhere>();
  readonly #told = new Set<string>();
  readonly #unsound = new Set<string>();
  /** The errors of missing remote packs, by name. */
  readonly #missing = new Map<string, CairnError>();
  #ends: ReadonlyMap<string, number> | undefined;
  /** Trees that are in no pack, by id. */
  readonly #lent = new Map<string, Uint8Array>();
  readonly #derived: DerivedBlobs | null;
  /** Number of the pack of derived blobs; -1: none. */
  readonly #derivedPack: number;

  constructor(options: BlobSourceOptions) {
    const { packs } = options;
    this.#options = options;
    this.#index = options.index;
    this.#far = packs instanceof NearPacks && !packs.isLocal ? packs : null;
    const { keys, readsWith } = options;
    this.#reader =
      readsWith === undefined ? new BlobReader({ keys, openPack: (pack) => packs.open(pack) }) : readsWith.#reader;
    this.#ends = options.sizes;
    this.#derived = options.derived ? new DerivedBlobs(options.derived, this) : null;
    this.#derivedPack = this.#derived === null ? -1 : options.index.numberOf(DERIVED_PACK);
    this.#far?.compareWith(options.index, options.keys);
  }

  get index(): BlobIndex {
    return this.#index;
  }

  /** Returns the blobs that were read from another place than the index has, by entry. */
  get elsewhere(): ReadonlyMap<number, Elsewhere> {
    return this.#elsewhere;
  }

  /** Lets `listTree` and `lent` return a tree that is in no pack. */
  lend(id: string, tree: Uint8Array): void {
    this.#lent.set(id, tree);
  }

  /** Removes a tree that was lent. */
  takeBack(id: string): void {
    this.#lent.delete(id);
  }

  /** Returns the bytes of a tree that was lent. */
  lent(id: Uint8Array): Uint8Array | undefined {
    return this.#lent.size === 0 ? undefined : this.#lent.get(objectIdOf(id));
  }

  /** Returns a blob's plaintext from local packs, in the decoder's memory: valid until the next call. */
  view(entry: number, compares = this.#options.compares): Uint8Array {
    if (this.isDerived(entry)) return this.#derived!.read(this.#index.idOf(entry), this.#index.table.typeOf(entry));
    const place = this.#placeOf(entry, compares);
    try {
      return this.#reader.view(place);
    } catch (error) {
      return this.#viewElsewhere(entry, this.#damage(error));
    }
  }

  /**
   * Returns a blob's plaintext in pieces, so that no large blob is in memory as a whole. Use all pieces before the next
   * call.
   */
  pieces(entry: number, compares = this.#options.compares): Iterable<Uint8Array> {
    if (this.isDerived(entry)) return [this.view(entry)];
    const read = (place: BlobPlace & { id: Uint8Array }): Iterable<Uint8Array> => this.#reader.pieces(place);
    try {
      return read(this.#placeOf(entry, compares));
    } catch (error) {
      return this.#readElsewhere(entry, this.#damage(error), read);
    }
  }

  /** True for a blob that lies in no pack. */
  isDerived(entry: number): boolean {
    return this.#derivedPack >= 0 && this.#index.table.packOf[entry] === this.#derivedPack;
  }

  /** Tells whether `pieces` yields more than one piece. */
  isInPieces(entry: number): boolean {
    return isInPieces(this.#index.place(entry));
  }

  /** Returns an entry's plaintext in memory of its own; otherwise like `view`. */
  read(entry: number): Uint8Array {
    const plain = this.view(entry);
    return this.isDerived(entry) ? plain : this.own(plain);
  }

  /** Returns the plaintext of the last view in memory that the caller owns. Does not copy a large plaintext. */
  own(plain: Uint8Array): Uint8Array {
    return this.#reader.handOver() ?? new Uint8Array(plain);
  }

  /** Returns a copy of the blob with this id. Throws `damaged` also if the index does not have it. */
  readId(id: Uint8Array, type: BlobType): Uint8Array {
    const entry = this.#index.lookup(id, 0, type);
    if (entry >= 0) return this.read(entry);
    throw this.#unknown(id);
  }

  #unknown(id: Uint8Array): CairnError {
    return new CairnError("damaged", `the index does not know blob ${objectIdOf(id).slice(0, 12)}`);
  }

  /**
   * Returns a tree's plaintext in memory of its own. Remote packs of trees are fetched whole, since the neighbours of a
   * tree follow.
   */
  readonly readTree: ReadTree = (entry, next) =>
    this.#far === null ? this.read(entry) : this.#brought(entry, next).then((plain) => this.own(plain));

  /** Returns a tree's plaintext in the decoder's memory, valid until the next call. */
  readonly viewTree: ReadTree = (entry, next) => (this.#far === null ? this.view(entry) : this.#brought(entry, next));

  /** Returns the nodes of a tree by its id; see `walkTrees`. */
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

  /** Returns any blob's plaintext in memory of its own. Fetches only this blob of a remote pack. */
  async readBlob(entry: number): Promise<Uint8Array> {
    return this.#far === null ? this.read(entry) : this.own(await this.#brought(entry, null));
  }

  /**
   * Reads many blobs of one local pack, sorted by offset. `each` gets every plaintext, valid during the call; blobs
   * that are read from other packs come last. `onDamage` gets blobs that are sound nowhere.
   */
  readWindow(
    entries: readonly number[],
    { each, onDamage, compares }: { each: EachBlob; onDamage: EachDamage; compares: (index: number) => boolean },
  ): void {
    const failed = new Map<number, CairnError>();
    const seen = new Uint8Array(entries.length);
    if (entries.length > 0 && this.isDerived(entries[0]!)) {
      for (const [at, entry] of entries.entries()) {
        try {
          const plain = this.view(entry);
          each(at, arenaOver(plain), 0, plain.length);
        } catch (error) {
          onDamage(at, this.#damage(error));
        }
      }
      return;
    }
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
   * Reads all these entries, at their other places too if the first is not sound. Returns the entries that are sound
   * nowhere. Drops fetched packs afterwards.
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

  /** Closes all packs, and frees the memory of a large blob. The source may be used again. */
  close(): void {
    this.#reader.close();
  }

  #placeOf(entry: number, compares = true): BlobPlace & { id: Uint8Array } {
    const place = this.#elsewhere.get(entry)?.place ?? this.#index.place(entry);
    return { ...place, id: this.#index.idOf(entry), isComparedLater: !compares };
  }

  /** Returns an error that tells of damage at a place. Throws any other error. */
  #damage(error: unknown): CairnError {
    const known = toCairnError(error);
    if (!tellsOfDamage(known)) throw known;
    const missing = known.details?.["missing_pack"];
    if (typeof missing === "string") this.#missing.set(missing, known);
    return known;
  }

  /**
   * Views the entry at another local place. Throws `error`, the error of the first place, if no other place is sound.
   */
  #viewElsewhere(entry: number, error: CairnError): Uint8Array {
    return this.#readElsewhere(entry, error, (place) => this.#reader.view(place));
  }

  /** Returns the result of `read` at the first other place that is sound. Throws `error` as `#viewElsewhere` does. */
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
    this.#tell(entry, false);
    throw error;
  }

  #take(entry: number, found: Elsewhere): void {
    if (!this.#elsewhere.has(entry)) this.#elsewhere.set(entry, found);
    this.#tell(entry, true);
  }

  #tell(entry: number, isElsewhere: boolean): void {
    const pack = objectIdOf(this.#index.place(entry).pack);
    const told = isElsewhere ? this.#told : this.#unsound;
    if (told.has(pack)) return;
    told.add(pack);
    this.#options.onDamagedPack?.(pack, isElsewhere);
  }

  /**
   * Fetches and views a blob. With `next` the blob is a tree: its whole pack is fetched, and packs of the trees that
   * follow.
   */
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
    this.#tell(entry, false);
    throw failure!;
  }

  async #fetchTree(place: BlobPlace, next: () => Iterable<number> = () => []): Promise<void> {
    const own = this.#whole(place.pack, place.offset + place.length);
    if (this.#far!.has(own)) return;
    // An error of another pack comes up when that pack is read.
    await this.#fetch([own, ...this.#ahead(own.pack, next)], true);
    try {
      await this.#fetch([own]);
    } catch (error) {
      const known = toCairnError(error);
      // The pack may be cut after this tree.
      if (known.code !== "damaged" || known.details?.["missing_pack"] !== undefined) throw known;
      await this.#fetch([rangeOf(place)]);
    }
  }

  /** Packs of the next trees that are not local yet, each once. */
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

  /** The reader is closed first: a fetched pack may replace a dropped file of the same name. */
  async #fetch(ranges: readonly WantedRange[], lenient = false): Promise<void> {
    const wanted = ranges.filter((range) => !this.#far!.has(range));
    if (wanted.length === 0) return;
    this.#reader.close();
    await this.#far!.fetch(wanted, { lenient, signal: this.#options.signal });
  }

  /** Fetches these places in few requests. A missing pack is noticed when it is read. */
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

/** Returns the end of the last blob in each pack, by the pack's name. */
function endsOf(index: BlobIndex): ReadonlyMap<string, number> {
  const ends = new Map<string, number>();
  for (const [number, end] of packEnds(index).entries()) ends.set(objectIdOf(index.table.packId(number)), end);
  return ends;
}
