import { SEAL_OVERHEAD } from "../../crypto/seal.ts";
import { CairnError } from "../../errors.ts";
import { wordAt } from "./claim-table.ts";

/** Type numbers of blobs, as in pack headers. */
export const DATA_BLOB = 0;
export const TREE_BLOB = 1;
export type BlobType = typeof DATA_BLOB | typeof TREE_BLOB;

export function blobTypeOf(name: "data" | "tree"): BlobType {
  return name === "tree" ? TREE_BLOB : DATA_BLOB;
}

export function blobTypeName(type: BlobType): "data" | "tree" {
  return type === TREE_BLOB ? "tree" : "data";
}

const HEADER_WORDS = 64;
const MAGIC = 0x31544243;
const W_MAGIC = 0;
const W_SLOTS = 1;
const W_COUNT = 2;
const W_PACKS = 3;

const FLAG_TREE = 1;

const MIN_SLOTS = 4096;
const MAX_SLOTS = 2 ** 27;
/**
 * A slot holds an entry number + 1 and five bits of its id, so that a lookup rarely compares the whole id of another
 * entry.
 */
const ENTRY_MASK = 0x07ffffff;
const PRINT_MASK = ~ENTRY_MASK;

/** Returns the number of entries that fit into a table of `slots` slots: three quarters. */
export function capacityOf(slots: number): number {
  return (slots >>> 2) * 3;
}

/** Returns the number of slots for `entries` entries: a power of two. */
export function slotsFor(entries: number): number {
  let slots = MIN_SLOTS;
  while (capacityOf(slots) < entries) slots *= 2;
  if (slots > MAX_SLOTS) throw new CairnError("unsupported", `an index of ${entries} blobs is too large`);
  return slots;
}

export interface BlobPlaceNumbers {
  /** Pack number in this table. */
  pack: number;
  offset: number;
  length: number;
  /** 0 = stored plain. */
  uncompressedLength: number;
}

/**
 * A hash table with typed columns that has the place of every blob, in one SharedArrayBuffer: 49 bytes an entry, and
 * 5.4–10.7 for its slots. Many threads may look up while one adds: a lookup may miss a new entry, but never returns a
 * wrong one. Growing makes a new buffer.
 */
export class BlobTable {
  readonly buffer: SharedArrayBuffer;
  readonly header: Int32Array;
  readonly slots: Int32Array;
  readonly packOf: Uint32Array;
  readonly offsetOf: Uint32Array;
  readonly lengthOf: Uint32Array;
  readonly plainOf: Uint32Array;
  readonly ids: Uint8Array;
  readonly flags: Uint8Array;
  readonly packIds: Uint8Array;
  /** Number of index files that list each pack. */
  readonly packRefs: Uint32Array;
  readonly #mask: number;

  private constructor(buffer: SharedArrayBuffer, slots: number) {
    const entries = capacityOf(slots);
    let at = HEADER_WORDS * 4;
    const words = (count: number): Uint32Array => {
      const view = new Uint32Array(buffer, at, count);
      at += count * 4;
      return view;
    };
    const bytes = (count: number): Uint8Array => {
      const view = new Uint8Array(buffer, at, count);
      at += count;
      return view;
    };
    this.buffer = buffer;
    this.header = new Int32Array(buffer, 0, HEADER_WORDS);
    const slotWords = words(slots);
    this.slots = new Int32Array(buffer, slotWords.byteOffset, slots);
    this.packOf = words(entries);
    this.offsetOf = words(entries);
    this.lengthOf = words(entries);
    this.plainOf = words(entries);
    this.packRefs = words(entries);
    this.ids = bytes(entries * 32);
    this.packIds = bytes(entries * 32);
    this.flags = bytes(entries);
    this.#mask = slots - 1;
  }

  static bytesFor(slots: number): number {
    return HEADER_WORDS * 4 + slots * 4 + capacityOf(slots) * (20 + 32 + 32 + 1);
  }

  /** Makes an empty table with `slots` slots (a power of two). */
  static make(slots: number): BlobTable {
    const table = new BlobTable(new SharedArrayBuffer(BlobTable.bytesFor(slots)), slots);
    table.header[W_MAGIC] = MAGIC;
    table.header[W_SLOTS] = slots;
    return table;
  }

  /** Opens the table that another thread made. */
  static over(buffer: SharedArrayBuffer): BlobTable {
    const header = new Int32Array(buffer, 0, HEADER_WORDS);
    const slots = header[W_SLOTS]!;
    if (header[W_MAGIC] !== MAGIC || buffer.byteLength !== BlobTable.bytesFor(slots)) {
      throw new CairnError("internal", "this shared buffer holds no blob table");
    }
    return new BlobTable(buffer, slots);
  }

  get slotCount(): number {
    return this.slots.length;
  }

  get capacity(): number {
    return this.packOf.length;
  }

  /** Number of entries; entry numbers are smaller. */
  get count(): number {
    return this.header[W_COUNT]!;
  }

  get packCount(): number {
    return this.header[W_PACKS]!;
  }

  /** Sets the counts after the caller has filled the columns from a file. */
  setCounts(count: number, packs: number): void {
    this.header[W_COUNT] = count;
    this.header[W_PACKS] = packs;
  }

  /**
   * Returns the entry number of the 32-byte id at `offset`, or -1. `type` limits the lookup to data (0) or tree (1)
   * blobs: the same bytes may be stored as both. No allocation.
   */
  lookup(bytes: Uint8Array, offset: number, type: number = -1): number {
    const slots = this.slots;
    const ids = this.ids;
    const mask = this.#mask;
    const count = this.header[W_COUNT]!;
    const print = wordAt(bytes, offset + 4) & PRINT_MASK;
    let slot = wordAt(bytes, offset) & mask;
    // Bounded, so that a damaged table cannot hang a reader.
    for (let left = mask; left >= 0; left--) {
      const value = slots[slot]!;
      if (value === 0) return -1;
      slot = (slot + 1) & mask;
      if ((value & PRINT_MASK) !== print) continue;
      const entry = (value & ENTRY_MASK) - 1;
      if (entry < 0 || entry >= count) return -1;
      const base = entry * 32;
      let i = 0;
      while (i < 32 && ids[base + i] === bytes[offset + i]) i++;
      if (i === 32 && (type < 0 || (this.flags[entry]! & FLAG_TREE) === type)) return entry;
    }
    return -1;
  }

  typeOf(entry: number): BlobType {
    return (this.flags[entry]! & FLAG_TREE) === 0 ? DATA_BLOB : TREE_BLOB;
  }

  /** Bytes of an entry's content. */
  plainLengthOf(entry: number): number {
    return this.plainOf[entry]! || this.lengthOf[entry]! - SEAL_OVERHEAD;
  }

  /**
   * Adds a blob. A known blob keeps its place unless `replace` is true. Returns the entry number, or -1 if the table is
   * full: the caller grows the table and adds the blob again.
   */
  add(id: { bytes: Uint8Array; offset: number; type: BlobType }, place: BlobPlaceNumbers, replace = false): number {
    let entry = this.lookup(id.bytes, id.offset, id.type);
    if (entry >= 0) {
      if (replace) this.#place(entry, id.type, place);
      return entry;
    }
    entry = this.count;
    if (entry >= this.capacity) return -1;
    const base = entry * 32;
    for (let i = 0; i < 32; i++) this.ids[base + i] = id.bytes[id.offset + i]!;
    this.#place(entry, id.type, place);
    this.#link(entry);
    this.header[W_COUNT] = entry + 1;
    return entry;
  }

  /** Adds a pack and returns its number. The caller knows that the pack is new and that there is room. */
  addPack(id: Uint8Array): number {
    const number = this.packCount;
    if (number >= this.capacity) throw new CairnError("internal", "the blob table has no room for another pack");
    this.packIds.set(id.subarray(0, 32), number * 32);
    this.header[W_PACKS] = number + 1;
    return number;
  }

  packId(number: number): Uint8Array {
    return this.packIds.subarray(number * 32, number * 32 + 32);
  }

  /** Returns the place of an entry. */
  numbersOf(entry: number): BlobPlaceNumbers {
    return {
      pack: this.packOf[entry]!,
      offset: this.offsetOf[entry]!,
      length: this.lengthOf[entry]!,
      uncompressedLength: this.plainOf[entry]!,
    };
  }

  /** Gives a known entry another place. */
  replace(entry: number, place: BlobPlaceNumbers): void {
    this.#place(entry, this.typeOf(entry), place);
  }

  /** Returns a table with room for `entries`. Entries and packs keep their numbers. */
  regrown(entries: number): BlobTable {
    const table = BlobTable.make(slotsFor(Math.max(entries, this.count, this.packCount)));
    const { count, packCount } = this;
    this.#copyEntries(table);
    table.packOf.set(this.packOf.subarray(0, count));
    table.packIds.set(this.packIds.subarray(0, packCount * 32));
    table.packRefs.set(this.packRefs.subarray(0, packCount));
    for (let entry = 0; entry < count; entry++) table.#link(entry);
    table.setCounts(count, packCount);
    return table;
  }

  /** Returns a compact copy. Drops packs that no index file lists and no entry names, and renumbers the rest. */
  compacted(): BlobTable {
    const { count } = this;
    const table = BlobTable.make(slotsFor(count));
    const packNumbers = new Int32Array(this.packCount).fill(-1);
    for (let pack = 0; pack < this.packCount; pack++) {
      if (this.packRefs[pack]! > 0) packNumbers[pack] = this.#copyPack(table, pack);
    }
    this.#copyEntries(table);
    for (let entry = 0; entry < count; entry++) {
      const pack = this.packOf[entry]!;
      if (packNumbers[pack]! < 0) packNumbers[pack] = this.#copyPack(table, pack);
      table.packOf[entry] = packNumbers[pack]!;
      table.#link(entry);
    }
    table.setCounts(count, table.packCount);
    return table;
  }

  /** Copies all columns of entries except the pack numbers. */
  #copyEntries(to: BlobTable): void {
    const { count } = this;
    to.ids.set(this.ids.subarray(0, count * 32));
    to.offsetOf.set(this.offsetOf.subarray(0, count));
    to.lengthOf.set(this.lengthOf.subarray(0, count));
    to.plainOf.set(this.plainOf.subarray(0, count));
    to.flags.set(this.flags.subarray(0, count));
  }

  #copyPack(to: BlobTable, pack: number): number {
    const number = to.addPack(this.packId(pack));
    to.packRefs[number] = this.packRefs[pack]!;
    return number;
  }

  #place(entry: number, type: BlobType, place: BlobPlaceNumbers): void {
    this.packOf[entry] = place.pack;
    this.offsetOf[entry] = place.offset;
    this.lengthOf[entry] = place.length;
    this.plainOf[entry] = place.uncompressedLength;
    this.flags[entry] = type === TREE_BLOB ? FLAG_TREE : 0;
  }

  #link(entry: number): void {
    const mask = this.#mask;
    let slot = wordAt(this.ids, entry * 32) & mask;
    while (this.slots[slot] !== 0) slot = (slot + 1) & mask;
    this.slots[slot] = (entry + 1) | (wordAt(this.ids, entry * 32 + 4) & PRINT_MASK);
  }
}
