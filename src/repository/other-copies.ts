import { CairnError, throwIfAborted, toCairnError } from "../errors.ts";
import { objectIdOf } from "../ids.ts";
import { type BlobIndex, type BlobPlaceOf, DATA_BLOB, isPlacedAt, TREE_BLOB } from "./blob-index.ts";
import { type BlobPlace, BlobReader } from "./blob-reader.ts";
import { eachIndexFile, eachIndexFileHere, type IndexedPack } from "./index-set.ts";
import { type ReadTree, tellsOfDamage } from "./live.ts";
import type { NearPacks, WantedRange } from "./near-packs.ts";
import type { Repository } from "./repository.ts";
import { addWanted } from "./transfer.ts";

/** A blob that is damaged or missing where the index has it, and sound in another pack. */
export interface FoundCopy {
  readonly entry: number;
  /** What is wrong where the index had it. */
  readonly error: CairnError;
  /** Names of both packs. */
  readonly damagedPack: string;
  readonly soundPack: string;
}

export interface OtherCopiesOptions {
  repository: Repository;
  index: BlobIndex;
  near: NearPacks;
  signal?: AbortSignal | undefined;
  /** Told once of each pack that is damaged or missing, and of which something was found elsewhere. */
  onFound?: ((copy: FoundCopy) => void) | undefined;
  /** True: what `seek` brings from far away goes when it was looked at. */
  drops?: boolean;
}

/** So much is brought at once of what is looked at, from far away. */
const BATCH_BYTES = 32 * 1024 * 1024;
const NONE = 0;

/**
 * Where blobs lie beside the places that an index has of them: in packs of backups that ran at the same time, or that were
 * stored again. Read from the index files when something is met that is damaged, and not before. What is found to be sound
 * there is read there from then on; the index says so once `settle` was called.
 */
export class OtherCopies {
  readonly #options: OtherCopiesOptions;
  readonly #reader: BlobReader;
  /** By entry; the ones that the index has of them meanwhile, too. */
  readonly #found = new Map<number, FoundCopy & { readonly place: BlobPlaceOf }>();
  readonly #toSettle = new Set<number>();
  readonly #told = new Set<string>();
  /** Entries that were sought, and found to be sound nowhere. */
  readonly unsound = new Set<number>();
  /** What was said when packs that are not there were asked for, by name. */
  readonly #missing = new Map<string, CairnError>();
  #places: Places | null = null;

  constructor(options: OtherCopiesOptions) {
    const { repository, near } = options;
    this.#options = options;
    this.#reader = new BlobReader({ keys: repository.keys, openPack: (pack) => near.open(pack) });
  }

  /** All that was found, by entry. */
  get found(): ReadonlyMap<number, FoundCopy> {
    return this.#found;
  }

  /** The plaintext of a blob that could not be read at its place, which is told by `error`: a copy, or thrown is that. */
  async read(place: BlobPlace, error: unknown): Promise<Uint8Array> {
    const known = toCairnError(error);
    if (!tellsOfDamage(known)) throw error;
    this.#note(known);
    for (const entry of this.#entriesOf(place)) {
      const plain = await this.#seekFor(entry, known);
      if (plain !== null) return plain;
    }
    throw error;
  }

  /** The same at once, of a repository of this machine. */
  readHere(place: BlobPlace, error: unknown): Uint8Array {
    const known = toCairnError(error);
    if (!tellsOfDamage(known)) throw error;
    this.#note(known);
    this.#places ??= this.#loadHere();
    for (const entry of this.#entriesOf(place)) {
      for (const other of this.#placesOf(entry, this.#places)) {
        const read = this.#readHere(entry, other);
        if (!(read instanceof CairnError)) return this.#take(entry, { error: known, place: other, read });
      }
    }
    throw error;
  }

  /** A reader of trees that reads copies of those that another one cannot read. */
  reading(readTree: ReadTree): ReadTree {
    return (place, next) => {
      const elsewhere = async (error: unknown): Promise<Uint8Array> => this.read(place, error);
      try {
        const read = readTree(this.placeOf(place), next);
        return read instanceof Uint8Array ? read : read.catch(elsewhere);
      } catch (error) {
        return elsewhere(error);
      }
    };
  }

  /** Where a blob is read from by now: where it was found, or the same place. Throws for a pack that is known to be missing. */
  placeOf<Place extends BlobPlace>(place: Place): Place {
    if (this.#found.size === 0) return place;
    const found = this.#placeFound(place);
    if (found !== null) return found;
    const missing = this.#missing.size === 0 ? undefined : this.#missing.get(objectIdOf(place.pack));
    if (missing !== undefined) throw missing;
    return place;
  }

  #placeFound<Place extends BlobPlace>(place: Place): Place | null {
    for (const entry of this.#entriesOf(place)) {
      const found = this.#found.get(entry)?.place;
      if (found === undefined) continue;
      const { pack, offset, length, uncompressedLength } = found;
      return { ...place, pack, offset, length, uncompressedLength };
    }
    return null;
  }

  /**
   * Finds sound copies of those of these entries that cannot be read where the index has them, as far as they are in other
   * packs too. Returns how many were found.
   */
  async seek(entries: Iterable<number>): Promise<number> {
    const places = await this.#load();
    const before = this.#found.size;
    await this.#seekAll(entries, (entry) => places.firstOf(entry) !== NONE);
    return this.#found.size - before;
  }

  /** Reads all of these, also those that are in no other pack: what is sound nowhere is in `unsound`. */
  async prove(entries: Iterable<number>): Promise<void> {
    await this.#seekAll(entries, () => true);
  }

  async #seekAll(entries: Iterable<number>, isWanted: (entry: number) => boolean): Promise<void> {
    let batch: number[] = [];
    let bytes = 0;
    const { index } = this.#options;
    for (const entry of entries) {
      if (this.#found.has(entry) || !isWanted(entry)) continue;
      batch.push(entry);
      bytes += index.table.lengthOf[entry]!;
      if (bytes < BATCH_BYTES) continue;
      await this.#seekBatch(batch);
      batch = [];
      bytes = 0;
    }
    await this.#seekBatch(batch);
  }

  /**
   * True where other packs have something of what kept work from being done, or its trees, which is read from them now.
   * `entries`: what the work reads, all of which is looked at, as each try again writes anew what it had not finished; null:
   * that is not known yet, and it may need all that was in the pack which the error names.
   */
  async mends(error: unknown, entries: Uint32Array | null): Promise<boolean> {
    if (!(error instanceof CairnError) || error.code !== "damaged") return false;
    const pack = error.details?.["missing_pack"] ?? error.details?.["pack"];
    if (entries !== null) await this.seek(entries);
    else if (typeof pack === "string") await this.seek(this.#entriesIn(pack));
    return this.settle();
  }

  *#entriesIn(pack: string): Generator<number> {
    const { table } = this.#options.index;
    let number = 0;
    while (number < table.packCount && objectIdOf(table.packId(number)) !== pack) number++;
    for (let entry = 0; entry < table.count; entry++) if (table.packOf[entry] === number) yield entry;
  }

  /** The index has from now on what was found. Nobody else uses it meanwhile. True where it did not before. */
  settle(): boolean {
    const { index } = this.#options;
    const changes = this.#toSettle.size > 0;
    for (const entry of this.#toSettle) index.relocate(entry, this.#found.get(entry)!.place);
    this.#toSettle.clear();
    return changes;
  }

  close(): void {
    this.#reader.close();
  }

  #note(error: CairnError): void {
    const missing = error.details?.["missing_pack"];
    if (typeof missing === "string") this.#missing.set(missing, error);
  }

  #entriesOf({ id }: BlobPlace): number[] {
    if (id === undefined) return [];
    return [TREE_BLOB, DATA_BLOB].map((type) => this.#options.index.lookup(id, 0, type)).filter((entry) => entry >= 0);
  }

  async #seekBatch(entries: readonly number[]): Promise<void> {
    const { index, signal } = this.#options;
    await this.#bring(entries.map((entry) => index.place(entry)));
    const unsound: { entry: number; error: CairnError }[] = [];
    for (const entry of entries) {
      throwIfAborted(signal);
      const read = await this.#readAt(entry, index.place(entry));
      if (read instanceof CairnError) unsound.push({ entry, error: read });
    }
    if (this.#options.drops === true) for (const entry of entries) this.#drop(index.place(entry));
    if (unsound.length === 0) return;
    const places = await this.#load();
    const others = unsound.map(({ entry }) => places.firstOf(entry)).filter((row) => row !== NONE);
    await this.#bring(others.map((row) => places.place(row)));
    for (const { entry, error } of unsound) {
      throwIfAborted(signal);
      if ((await this.#seekFor(entry, error)) === null) this.unsound.add(entry);
    }
    if (this.#options.drops !== true) return;
    for (const { entry } of unsound)
      for (let row = places.firstOf(entry); row !== NONE; row = places.nextOf(row)) this.#drop(places.place(row));
  }

  #drop({ pack }: Pick<BlobPlaceOf, "pack">): void {
    this.#options.near.drop(objectIdOf(pack));
  }

  /** In few requests where packs are far away; what is not there is met when it is read. */
  async #bring(places: readonly Omit<BlobPlaceOf, "type">[]): Promise<void> {
    const { near, signal } = this.#options;
    if (near.isLocal) return;
    const wanted: WantedRange[] = [];
    const sorted = places.toSorted((a, b) => Buffer.compare(a.pack, b.pack) || a.offset - b.offset);
    for (const { pack, offset, length } of sorted) addWanted(wanted, { pack: objectIdOf(pack), offset, length });
    await near.fetch(wanted, { lenient: true, signal });
  }

  /** The content of the first sound one of an entry's other places, which is the one that is read from now on. */
  async #seekFor(entry: number, error: CairnError): Promise<Uint8Array | null> {
    for (const place of this.#placesOf(entry, await this.#load())) {
      const read = await this.#readAt(entry, place);
      if (!(read instanceof CairnError)) return this.#take(entry, { error, place, read });
    }
    return null;
  }

  *#placesOf(entry: number, places: Places): Generator<BlobPlaceOf> {
    const { type } = this.#options.index.place(entry);
    for (let row = places.firstOf(entry); row !== NONE; row = places.nextOf(row)) yield { ...places.place(row), type };
  }

  /** What was read of an entry at another place is read there from now on. */
  #take(entry: number, of: { error: CairnError; place: BlobPlaceOf; read: Uint8Array }): Uint8Array {
    const { error, place, read } = of;
    const damagedPack = objectIdOf(this.#options.index.place(entry).pack);
    const found = { entry, error, damagedPack, soundPack: objectIdOf(place.pack), place };
    this.#found.set(entry, found);
    this.#toSettle.add(entry);
    if (!this.#told.has(damagedPack)) this.#options.onFound?.(found);
    this.#told.add(damagedPack);
    return read;
  }

  /** A copy of its content, or what keeps it from being read there. */
  async #readAt(entry: number, place: BlobPlaceOf): Promise<Uint8Array | CairnError> {
    const { near, signal } = this.#options;
    if (near.isLocal) return this.#readHere(entry, place);
    const { type, pack, offset, length } = place;
    const name = objectIdOf(pack);
    try {
      if (this.#missing.has(name)) return this.#readHere(entry, place);
      // The neighbours of a tree follow.
      const end = type === "tree" ? (this.#places?.endOf(name) ?? 0) : 0;
      const around = end < offset + length ? null : { pack: name, offset: 0, length: end };
      if (around !== null) await near.fetch([around], { signal, lenient: true });
      // Also where the pack is cut behind it.
      if (around === null || !near.has(around)) await near.fetch([{ pack: name, offset, length }], { signal });
      return this.#readHere(entry, place);
    } catch (error) {
      return this.#damageOf(error);
    } finally {
      // What was brought may go, and be brought again into another file.
      this.#reader.close();
    }
  }

  /** The same of what is at hand. */
  #readHere(entry: number, place: BlobPlaceOf): Uint8Array | CairnError {
    const missing = this.#missing.get(objectIdOf(place.pack));
    if (missing !== undefined) return missing;
    try {
      return this.#reader.read({ ...place, id: this.#options.index.idOf(entry) });
    } catch (error) {
      return this.#damageOf(error);
    }
  }

  #damageOf(error: unknown): CairnError {
    const known = toCairnError(error);
    if (!tellsOfDamage(known)) throw known;
    this.#note(known);
    return known;
  }

  #loadHere(): Places {
    const { repository, index } = this.#options;
    const places = new Places(index.count);
    eachIndexFileHere(repository, ({ packs }) => packs.forEach((pack) => addOthers(places, pack, index)));
    return places;
  }

  async #load(): Promise<Places> {
    if (this.#places !== null) return this.#places;
    const { repository, index, signal } = this.#options;
    const places = new Places(index.count);
    const names = (await repository.storage.list("index")).map(({ name }) => name);
    try {
      await eachIndexFile(repository, names, ({ packs }) => packs.forEach((pack) => addOthers(places, pack, index)), {
        signal,
      });
    } catch (error) {
      // Who has no lock may meet that one was replaced: what was read of the others is what there is.
      if (toCairnError(error).code !== "not_found") throw error;
    }
    return (this.#places = places);
  }
}

function addOthers(places: Places, pack: IndexedPack, index: BlobIndex): void {
  let number = NONE;
  const { blobs } = pack;
  for (const blob of blobs) {
    const entry = index.entryOf(blob);
    if (entry < 0 || isPlacedAt(index, entry, pack.id, blob)) continue;
    if (number === NONE) number = places.addPack(pack.id, blobs.at(-1)!);
    places.add(entry, number, blob);
  }
}

/** Words of a row: the next row of the same entry, a pack's number here, offset, length, plain length. */
const ROW = 5;

/** Rows of numbers, since all blobs of a repository may be there twice; each row leads to the next one of its entry. */
class Places {
  readonly #packs: Uint8Array[] = [new Uint8Array(0)];
  readonly #ends = new Map<string, number>();
  readonly #first: Uint32Array;
  #rows = new Uint32Array(ROW * 1024);
  #count = 1;

  constructor(entries: number) {
    this.#first = new Uint32Array(entries);
  }

  addPack(id: Uint8Array, last: { offset: number; length: number }): number {
    this.#ends.set(objectIdOf(id), last.offset + last.length);
    return this.#packs.push(Uint8Array.from(id)) - 1;
  }

  add(entry: number, pack: number, at: { offset: number; length: number; uncompressedLength: number }): void {
    // What a save beside us has added since.
    if (entry >= this.#first.length) return;
    const row = this.#count++;
    if (this.#count * ROW > this.#rows.length) {
      const grown = new Uint32Array(this.#rows.length * 2);
      grown.set(this.#rows);
      this.#rows = grown;
    }
    this.#rows.set([this.#first[entry]!, pack, at.offset, at.length, at.uncompressedLength], row * ROW);
    this.#first[entry] = row;
  }

  /** Where the last blob of a pack ends that holds some of these. */
  endOf(pack: string): number | undefined {
    return this.#ends.get(pack);
  }

  firstOf(entry: number): number {
    return this.#first[entry] ?? NONE;
  }

  nextOf(row: number): number {
    return this.#rows[row * ROW]!;
  }

  place(row: number): Omit<BlobPlaceOf, "type"> {
    const [, pack, offset, length, uncompressedLength] = this.#rows.subarray(row * ROW, row * ROW + ROW);
    return {
      pack: this.#packs[pack!]!,
      offset: offset!,
      length: length!,
      uncompressedLength: uncompressedLength!,
    };
  }
}
