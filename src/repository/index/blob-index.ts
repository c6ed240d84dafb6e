import { randomBytes } from "node:crypto";
import { CairnError } from "../../errors.ts";
import { SEAL_OVERHEAD } from "../../crypto/seal.ts";
import { decodeIndexColumns, IndexColumns, type IndexBlob, type PackRange } from "../../formats/restic/index-file.ts";
import { marksIn, type PruneMarks } from "../../formats/restic/prune-marks.ts";
import { decodePackHeader } from "../../formats/restic/pack-header.ts";
import { objectIdOf } from "../../ids.ts";
import { dropPages, giveBack } from "../../native.ts";
import { newPacer } from "../../pacer.ts";
import {
  type BlobPlaceNumbers,
  BlobTable,
  blobTypeName,
  blobTypeOf,
  capacityOf,
  DATA_BLOB,
  slotsFor,
  TREE_BLOB,
  type BlobType,
} from "./blob-table.ts";
import { ClaimTable } from "./claim-table.ts";
import { readIndexCache, writeIndexCache } from "./index-cache.ts";
import { OtherPlaces } from "./other-places.ts";
import type { FinishedPack } from "../packs/pack-writer.ts";
import type { DamagedFile, Repository } from "../repository.ts";
import type { StoredFile } from "../storage/storage.ts";

export { blobTypeName, blobTypeOf, DATA_BLOB, TREE_BLOB, type BlobType } from "./blob-table.ts";

/** An index file without packs in which a prune marked packs; an error if its marks cannot be used. */
export interface MarkFile {
  readonly name: string;
  readonly writtenAt: number | undefined;
  readonly marks: PruneMarks | CairnError;
}

export interface BlobPlaceOf {
  /** 32 bytes, a view into the shared table. */
  readonly pack: Uint8Array;
  readonly offset: number;
  /** Sealed bytes in the pack. */
  readonly length: number;
  /** 0 if the blob is not compressed. */
  readonly uncompressedLength: number;
  readonly type: "data" | "tree";
}

/** Memory through which another thread uses the index; `postMessage` passes it without a copy. */
export interface SharedIndex {
  readonly table: SharedArrayBuffer;
  readonly others: SharedArrayBuffer;
  readonly session: SharedArrayBuffer | null;
}

/** Stands for the pack of blobs that are made from other blobs. */
export const DERIVED_PACK = new Uint8Array(32);

/** The cache is rewritten when this many index files are not in it. */
const CACHE_EVERY = 16;
/** The number of entries whose decoding takes about as long as reading one more file. */
const BLOBS_LIKE_A_FILE = 200;
const LIST_AGAIN = 8;
/** The most entries that get memory before they are read, because a listing may state wrong sizes. */
const MOST_EXPECTED = capacityOf(2 ** 24);

/**
 * Every blob of a repository with all its places. `load` makes it; other threads use `fromShared`. One thread adds; any
 * thread may look up and claim, but may miss entries that are being added.
 */
export class BlobIndex {
  /** Unreadable index files. Blobs that only they list count as absent. */
  damaged: DamagedFile[] = [];
  /** Index files in which prunes marked packs. Each load reads these files again; none is covered. */
  marks: MarkFile[] = [];
  /** Names of the index files whose entries are in the table. */
  readonly covered = new Set<string>();
  /** True if the blobs of some packs were left out (`without`). */
  isPartial = false;
  #table: BlobTable;
  #others: OtherPlaces;
  #session: ClaimTable | null;
  /** The packs given to `beginSession`, and the range of each pack's claimed blobs. */
  #given: { pack: FinishedPack; from: number; to: number }[] = [];
  #epoch: Uint8Array = randomBytes(16);
  #packNumbers: Map<string, number> | null = null;
  #uncached = 0;
  #cache: { path: string; repositoryId: string } | null = null;

  constructor(table = BlobTable.make(slotsFor(0)), others = new OtherPlaces(), session: ClaimTable | null = null) {
    this.#table = table;
    this.#others = others;
    this.#session = session;
  }

  static fromShared(shared: SharedIndex): BlobIndex {
    return new BlobIndex(
      BlobTable.over(shared.table),
      new OtherPlaces(shared.others),
      shared.session === null ? null : ClaimTable.over(shared.session),
    );
  }

  /**
   * Reads the cache at `cachePath` (null: none) and all index files that it does not cover. If a covered file vanished,
   * reads all again. Damaged files are listed in `damaged`. Writing the cache is best effort. `signal` stops between
   * two files.
   */
  static async load(repository: Repository, cachePath: string | null, signal?: AbortSignal): Promise<BlobIndex> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await loadOnce(repository, cachePath, signal);
      } catch (error) {
        if (!hasVanished(error) || attempt >= LIST_AGAIN) throw error;
      }
    }
  }

  /**
   * Returns an index without the blobs that only these packs contain, for a writer that stores the blobs again. Entry
   * numbers differ in the returned index.
   */
  without(packs: ReadonlySet<string>): BlobIndex {
    const index = new BlobIndex(BlobTable.make(slotsFor(this.count)));
    index.isPartial = true;
    for (const name of this.covered) index.covered.add(name);
    const { table } = this;
    const isLost = (pack: Uint8Array): boolean => packs.has(objectIdOf(pack));
    const lost = Uint8Array.from({ length: this.packCount }, (_, pack) => (isLost(table.packId(pack)) ? 1 : 0));
    for (let entry = 0; entry < this.count; entry++) {
      const places = lost[table.packOf[entry]!] === 0 ? [this.place(entry)] : this.others(entry);
      const place = places.find(({ pack }) => !isLost(pack));
      if (place === undefined) continue;
      const pack = index.#packNumber(place.pack);
      const id = { bytes: table.ids, offset: entry * 32, type: table.typeOf(entry) };
      index.#table.add(id, { ...place, pack });
    }
    for (let pack = 0; pack < index.packCount; pack++)
      index.#table.packRefs[pack] = this.listings(index.#table.packId(pack));
    return index;
  }

  /** Returns a copy that also lists these blobs, which lie in no pack, under {@link DERIVED_PACK}. Entry numbers are equal. */
  withDerived(blobs: Iterable<{ id: Uint8Array; type: BlobType; length: number }>): BlobIndex {
    const added = [...blobs].filter(({ id, type }) => this.#table.lookup(id, 0, type) < 0);
    const table = this.#table.regrown(Math.max(this.count + added.length, this.packCount) + 1);
    // The copy may get packs of its own, whose places mean nothing here.
    const index = new BlobIndex(
      table,
      this.#others.renumbered((number) => number),
    );
    index.isPartial = true;
    const pack = index.#packNumber(DERIVED_PACK);
    for (const [offset, { id, type, length }] of added.entries())
      table.add(
        { bytes: id, offset: 0, type },
        { pack, offset, length: length + SEAL_OVERHEAD, uncompressedLength: 0 },
      );
    return index;
  }

  get shared(): SharedIndex {
    return { table: this.#table.buffer, others: this.#others.buffer, session: this.#session?.buffer ?? null };
  }

  /** Number of entries; entry numbers are smaller. */
  get count(): number {
    return this.#table.count;
  }

  get packCount(): number {
    return this.#table.packCount;
  }

  /**
   * 32 hex digits, unchanged as long as no id leaves the index. Ids remembered with the same epoch are in this index;
   * with another epoch, look each up before use.
   */
  get epoch(): string {
    return Buffer.from(this.#epoch).toString("hex");
  }

  /** Returns the entry number of the id at `offset`, or -1. `type`: 0 data, 1 tree, absent: either. No allocation. */
  lookup(bytes: Uint8Array, offset: number, type: number = -1): number {
    return this.#table.lookup(bytes, offset, type);
  }

  /** Returns the entry number of a blob from a pack header or index file, or -1. */
  entryOf({ id, type }: Pick<IndexBlob, "id" | "type">): number {
    return this.#table.lookup(id, 0, blobTypeOf(type));
  }

  place(entry: number): BlobPlaceOf {
    const table = this.#table;
    if (!(entry >= 0 && entry < table.count)) throw new CairnError("internal", `the index has no entry ${entry}`);
    return this.#placeOf(entry, table.numbersOf(entry));
  }

  /** Returns further places of an entry: packs of simultaneous saves, or of content that was stored again. */
  others(entry: number): BlobPlaceOf[] {
    if (this.#others.count === 0) return [];
    const { packRefs, packOf, offsetOf } = this.#table;
    return this.#others
      .of(entry)
      .filter(({ pack, offset }) => packRefs[pack]! > 0 && (pack !== packOf[entry] || offset !== offsetOf[entry]))
      .map((place) => this.#placeOf(entry, place));
  }

  /** Yields entries with several places; may repeat an entry. */
  *inSeveralPlaces(): Generator<number> {
    yield* this.#others.entries();
  }

  #placeOf(entry: number, { pack, ...place }: BlobPlaceNumbers): BlobPlaceOf {
    return { pack: this.#table.packId(pack), ...place, type: blobTypeName(this.#table.typeOf(entry)) };
  }

  /** Returns a view of the 32 bytes of an entry's id. */
  idOf(entry: number): Uint8Array {
    return this.#table.ids.subarray(entry * 32, entry * 32 + 32);
  }

  /** The columns, for loops over all entries. Do not write. */
  get table(): BlobTable {
    return this.#table;
  }

  /**
   * Starts a save: `claim` works from now on, also in threads that get `shared` afterwards. `given`: packs in no index
   * whose blobs need not be stored again; default: the packs of the previous session.
   */
  beginSession(given: readonly FinishedPack[] = this.#given.map(({ pack }) => pack)): void {
    const session = ClaimTable.make(
      undefined,
      given.reduce((sum, pack) => sum + pack.blobs, 0),
    );
    this.#given = given.map((pack) => {
      const from = session.count;
      for (const { id, type } of decodePackHeader(pack.header))
        if (this.entryOf({ id, type }) < 0) session.claim(id, 0, blobTypeOf(type));
      return { pack, from, to: session.count };
    });
    session.forgetWanted();
    this.#session = session;
  }

  /** Returns the given packs that have a blob which this save would have stored. */
  wantedPacks(): FinishedPack[] {
    return this.#given.filter(({ from, to }) => this.#session?.isWanted(from, to) === true).map(({ pack }) => pack);
  }

  /** Ends the session after all claims. Frees its memory at once, since the garbage collector would do so late. */
  endSession(): void {
    if (this.#session !== null) dropPages(this.#session.buffer);
    this.#session = null;
    this.#given = [];
  }

  /** True if the blob is neither in the index nor claimed: this caller alone stores it. For any thread. */
  claim(bytes: Uint8Array, offset: number, type: BlobType = DATA_BLOB): boolean {
    if (this.#table.lookup(bytes, offset, type) >= 0) return false;
    if (this.#session === null) throw new CairnError("internal", "claim needs beginSession first");
    return this.#session.claim(bytes, offset, type);
  }

  /** Adds a pack's blobs from an index file. Known blobs keep their place. Entry numbers never change. */
  addColumns(columns: IndexColumns, { id: packId, from, to }: PackRange): void {
    this.#room(to - from);
    const pack = this.#packNumber(packId);
    this.#table.packRefs[pack]!++;
    // One pair of objects for all blobs, as below.
    const id = { bytes: columns.ids, offset: 0, type: DATA_BLOB as BlobType };
    const place = { pack, offset: 0, length: 0, uncompressedLength: 0 };
    for (let at = from; at < to; at++) {
      id.offset = at * 32;
      id.type = columns.trees[at] === 1 ? TREE_BLOB : DATA_BLOB;
      place.offset = columns.offsets[at]!;
      place.length = columns.lengths[at]!;
      place.uncompressedLength = columns.plainLengths[at]!;
      this.#add(id, place, false);
    }
  }

  /**
   * Adds the blobs of a pack of this process from the plain bytes of its header. `replace`: known blobs are read from
   * this pack from now on.
   */
  addPackHeader(packId: Uint8Array, header: Uint8Array, replace = false): void {
    this.#room(Math.ceil(header.length / 37));
    const pack = this.#packNumber(packId);
    this.#table.packRefs[pack]!++;
    const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
    // One pair of objects for all blobs: this runs once for each blob of a first save.
    const id = { bytes: header, offset: 0, type: DATA_BLOB as BlobType };
    const place = { pack, offset: 0, length: 0, uncompressedLength: 0 };
    for (let at = 0; at < header.length; at = id.offset + 32) {
      const kind = header[at]!;
      place.length = view.getUint32(at + 1, true);
      place.uncompressedLength = kind >= 2 ? view.getUint32(at + 5, true) : 0;
      id.offset = at + (kind >= 2 ? 9 : 5);
      id.type = (kind & 1) === 1 ? TREE_BLOB : DATA_BLOB;
      this.#add(id, place, replace);
      place.offset += place.length;
    }
  }

  /** Bytes of a blob's content. */
  plainLength(entry: number): number {
    const { length, uncompressedLength } = this.place(entry);
    return uncompressedLength === 0 ? length - SEAL_OVERHEAD : uncompressedLength;
  }

  /** Adds packs of this process, and the names of the index files that list them. */
  addIndexed(packs: readonly FinishedPack[], indexNames: readonly string[]): void {
    const blobs = packs.reduce((sum, pack) => sum + pack.blobs, 0);
    this.#room(blobs);
    for (const { id, header } of packs) this.addPackHeader(id, header);
    for (const name of indexNames) this.cover(name, blobs / indexNames.length);
  }

  /** True if `other` has all blobs of this index. */
  isWithin(other: BlobIndex): boolean {
    return holdsAll(other, this.#table);
  }

  /** Makes room for this number of further blobs in one step. */
  reserve(blobs: number): void {
    this.#room(blobs);
  }

  /** Makes another place of an entry the preferred one; the previous place stays as a further one. */
  prefer(entry: number, { pack, offset }: Pick<BlobPlaceOf, "pack" | "offset">): void {
    const number = this.#packNumber(pack);
    const place = this.#others.of(entry).find((each) => each.pack === number && each.offset === offset);
    if (place === undefined) throw new CairnError("internal", `entry ${entry} does not lie there`);
    this.#others.add(entry, this.#table.numbersOf(entry));
    this.#table.replace(entry, place);
  }

  /** Counts the index files that list this pack. */
  listings(packId: Uint8Array): number {
    return this.#table.packRefs[this.numberOf(packId)] ?? 0;
  }

  /** Returns the number of a pack in the table; -1 if the table does not have it. */
  numberOf(packId: Uint8Array): number {
    this.#packNumbers ??= packNumbersOf(this.#table);
    return this.#packNumbers.get(keyOf(packId)) ?? -1;
  }

  /** Records that `times` index files that listed this pack are gone. */
  unlist(packId: Uint8Array, times = 1): void {
    const number = this.numberOf(packId);
    if (number >= 0) this.#table.packRefs[number] = Math.max(0, this.#table.packRefs[number]! - times);
  }

  /** Records that an index file of this process is in the table. `blobs`: the number of its blobs. */
  cover(indexName: string, blobs = 0): void {
    if (this.covered.has(indexName)) return;
    this.covered.add(indexName);
    this.#uncached += 1 + Math.floor(blobs / BLOBS_LIKE_A_FILE);
  }

  /** Records that an index file is gone, and that other files list all its entries. */
  uncover(indexName: string): void {
    if (this.covered.delete(indexName)) this.#uncached += CACHE_EVERY;
  }

  /** Writes the cache if enough has changed, or always with `force`. Best effort; returns true if it was written. */
  saveCache(force = false): boolean {
    if (this.#cache === null || (!force && this.#uncached < CACHE_EVERY)) return false;
    if (force && this.#uncached === 0) return false;
    try {
      const table = mostPacksAreGone(this.#table) ? this.#table.compacted() : this.#table;
      const others = this.#othersFor(table);
      const content = { table, others, epoch: this.#epoch, covered: this.covered };
      writeIndexCache(this.#cache.path, this.#cache.repositoryId, content);
    } catch {
      return false;
    }
    this.#uncached = 0;
    return true;
  }

  /** Returns the further places in packs that are still listed, with the pack numbers of `table`. */
  #othersFor(table: BlobTable): OtherPlaces {
    if (this.#others.count === 0) return this.#others;
    const { packRefs } = this.#table;
    const numbers = packNumbersOf(table);
    const numberOf = (pack: number): number => numbers.get(keyOf(this.#table.packId(pack))) ?? -1;
    return this.#others.renumbered((pack) => (packRefs[pack] === 0 ? -1 : numberOf(pack)));
  }

  #add(id: { bytes: Uint8Array; offset: number; type: BlobType }, place: BlobPlaceNumbers, replace: boolean): void {
    const table = this.#table;
    const known = table.count;
    const before = replace ? table.lookup(id.bytes, id.offset, id.type) : -1;
    if (before >= 0) this.#others.add(before, table.numbersOf(before));
    const entry = table.add(id, place, replace);
    if (replace || entry >= known) return;
    if (table.packOf[entry] !== place.pack || table.offsetOf[entry] !== place.offset) this.#others.add(entry, place);
  }

  #room(entries: number): void {
    const table = this.#table;
    const wanted = Math.max(table.count + entries, table.packCount + 1);
    if (wanted <= table.capacity) return;
    this.#table = table.regrown(Math.max(table.count + entries, table.packCount) + 1);
    this.#packNumbers = null;
  }

  #packNumber(id: Uint8Array): number {
    this.#packNumbers ??= packNumbersOf(this.#table);
    const key = keyOf(id);
    let number = this.#packNumbers.get(key);
    if (number === undefined) {
      number = this.#table.addPack(id);
      this.#packNumbers.set(key, number);
    }
    return number;
  }

  /**
   * Reads new index files. Call it under a lock if the index was loaded before. Returns false if a covered file is
   * gone: known blobs may have been removed, so use `load`. `files`: a list made under the lock.
   */
  async refresh(
    repository: Repository,
    { files: listed, signal }: { files?: readonly StoredFile[]; signal?: AbortSignal | undefined } = {},
  ): Promise<boolean> {
    const files = listed ?? (await repository.storage.list("index"));
    const present = new Set(files.map(({ name }) => name));
    for (const name of this.covered) if (!present.has(name)) return false;
    this.damaged = [];
    try {
      await readIndexes(repository, this, { files, signal });
    } catch (error) {
      if (hasVanished(error)) return false;
      throw error;
    }
    return true;
  }

  /** @internal For `load`. */
  adopt(from: {
    epoch?: Uint8Array;
    covered?: Iterable<string>;
    cachePath: string | null;
    repositoryId: string;
    stale: boolean;
  }): void {
    if (from.epoch !== undefined) this.#epoch = from.epoch;
    for (const name of from.covered ?? []) this.covered.add(name);
    this.#cache = from.cachePath === null ? null : { path: from.cachePath, repositoryId: from.repositoryId };
    if (from.stale) this.#uncached += CACHE_EVERY;
  }
}

/** True if the index reads this blob from this place. */
export function isPlacedAt({ table }: BlobIndex, entry: number, packId: Uint8Array, blob: IndexBlob): boolean {
  return table.offsetOf[entry] === blob.offset && Buffer.compare(table.packId(table.packOf[entry]!), packId) === 0;
}

/** True if an index file was replaced between listing and reading. */
function hasVanished(error: unknown): boolean {
  return error instanceof CairnError && error.code === "not_found";
}

/** Tells whether the table should be compacted: compaction of packs leaves numbers of removed packs. */
function mostPacksAreGone(table: BlobTable): boolean {
  let gone = 0;
  for (let pack = 0; pack < table.packCount; pack++) if (table.packRefs[pack] === 0) gone++;
  return gone > 64 && gone > table.packCount / 2;
}

function packNumbersOf(table: BlobTable): Map<string, number> {
  const map = new Map<string, number>();
  for (let i = 0; i < table.packCount; i++) {
    map.set(keyOf(table.packId(i)), i);
  }
  return map;
}

function keyOf(id: Uint8Array): string {
  return Buffer.from(id.buffer, id.byteOffset, 32).toString("latin1");
}

async function loadOnce(repository: Repository, cachePath: string | null, signal?: AbortSignal): Promise<BlobIndex> {
  const origin = { cachePath, repositoryId: repository.id };
  const cached = cachePath === null ? null : readIndexCache(cachePath, repository.id);
  const files = await repository.storage.list("index");
  const present = new Set(files.map(({ name }) => name));
  if (cached !== null && [...cached.covered].every((name) => present.has(name))) {
    const index = new BlobIndex(cached.table, cached.others);
    index.adopt({ ...origin, epoch: cached.epoch, covered: cached.covered, stale: false });
    await readIndexes(repository, index, { files, signal });
    index.saveCache();
    return index;
  }
  const index = new BlobIndex();
  await readIndexes(repository, index, { files, signal });
  const keptAll = cached !== null && holdsAll(index, cached.table);
  index.adopt({ ...origin, ...(keptAll ? { epoch: cached.epoch } : {}), stale: true });
  index.saveCache();
  return index;
}

interface ReadIndexes {
  files: readonly StoredFile[];
  signal: AbortSignal | undefined;
}

async function readIndexes(repository: Repository, index: BlobIndex, { files, signal }: ReadIndexes): Promise<void> {
  const unread = new Map(files.filter(({ name }) => !index.covered.has(name)).map((file) => [file.name, file]));
  let left = [...unread.values()].reduce((sum, { size }) => sum + size, 0);
  index.marks = [];
  const pace = newPacer(signal);
  const columns = new IndexColumns();
  for (const { name, json } of repository.loadInTurn("index", unread.keys())) {
    await pace();
    const before = index.count;
    const { size, writtenAt } = unread.get(name)!;
    try {
      const bytes = await json;
      const of = { columns, files: left / Math.max(1, size), label: `index ${name.slice(0, 8)}` };
      const marks = readIndexInto(index, bytes, of);
      giveBack(bytes);
      if (marks === undefined) index.cover(name, index.count - before);
      else index.marks.push({ name, writtenAt, marks });
    } catch (error) {
      if (!(error instanceof CairnError) || error.code !== "damaged") throw error;
      index.damaged.push({ name, error });
    }
    left -= size;
  }
}

/**
 * Decodes the whole file before it adds the first entry: a damaged file adds nothing. `files`: how many files of this
 * size are left. Reserves memory for all of them, since growing copies the table. Returns the marks of a file that has
 * marks instead of packs.
 */
function readIndexInto(
  index: BlobIndex,
  json: Uint8Array,
  { columns, files, label }: { columns: IndexColumns; files: number; label: string },
): PruneMarks | CairnError | undefined {
  const { extra } = decodeIndexColumns(json, columns);
  const expected = Math.min(MOST_EXPECTED - index.count, Math.ceil(columns.count * files));
  index.reserve(Math.max(columns.count, expected));
  for (const pack of columns.packs) index.addColumns(columns, pack);
  return columns.packs.length === 0 ? marksIn(extra, label) : undefined;
}

function holdsAll(index: BlobIndex, old: BlobTable): boolean {
  for (let entry = 0; entry < old.count; entry++) {
    if (index.lookup(old.ids, entry * 32, old.typeOf(entry)) < 0) return false;
  }
  return true;
}
