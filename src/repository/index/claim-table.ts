import { CairnError } from "../../errors.ts";

const MAGIC = 0x314d4c43;
const HEADER_WORDS = 64;
const W_MAGIC = 0;
const W_NEXT = 1;
const W_ENTRIES = 2;
const W_GIVEN = 3;
/** Slots to check on one level before the next level. */
const WINDOW = 16;
const LEVELS = [2 ** 18, 2 ** 20, 2 ** 22, 2 ** 24];
/** A slot: entry number + 1 (25 bits), six bits of the id, and the top bit for trees. */
const ENTRY_MASK = 0x01ffffff;
const PRINT_MASK = 0x7e000000;
const TREE_BIT = 0x80000000 | 0;

/**
 * Tells the threads of one save which blobs another thread stores, without locks: a digest is written into its own
 * entry, then published by one compare-and-swap on a slot. Slots are never emptied, so exactly one of two threads with
 * one digest wins. 36–40 bytes a blob; only touched pages are committed.
 */
export class ClaimTable {
  readonly buffer: SharedArrayBuffer;
  readonly #header: Int32Array;
  readonly #levels: Int32Array[] = [];
  readonly #ids: Uint8Array;
  readonly #entries: number;
  /** A byte for each entry from 0 on: 1 once its blob was claimed again. */
  readonly #wanted: Uint8Array;
  #spare = -1;

  private constructor(buffer: SharedArrayBuffer, entries: number, given: number) {
    this.buffer = buffer;
    this.#header = new Int32Array(buffer, 0, HEADER_WORDS);
    let at = HEADER_WORDS * 4;
    for (const slots of LEVELS) {
      this.#levels.push(new Int32Array(buffer, at, slots));
      at += slots * 4;
    }
    this.#ids = new Uint8Array(buffer, at, entries * 32);
    this.#entries = entries;
    this.#wanted = new Uint8Array(buffer, at + entries * 32, given);
  }

  /**
   * `entries`: the most blobs that one save may claim; further ones may be stored twice, but are never lost. `given`:
   * see `isWanted`.
   */
  static make(entries = 2 ** 24, given = 0): ClaimTable {
    const slots = LEVELS.reduce((sum, count) => sum + count, 0);
    const table = new ClaimTable(
      new SharedArrayBuffer(HEADER_WORDS * 4 + slots * 4 + entries * 32 + given),
      entries,
      given,
    );
    table.#header[W_MAGIC] = MAGIC;
    table.#header[W_ENTRIES] = entries;
    table.#header[W_GIVEN] = given;
    return table;
  }

  static over(buffer: SharedArrayBuffer): ClaimTable {
    const header = new Int32Array(buffer, 0, HEADER_WORDS);
    if (header[W_MAGIC] !== MAGIC) throw new CairnError("internal", "this shared buffer holds no claim table");
    return new ClaimTable(buffer, header[W_ENTRIES]!, header[W_GIVEN]!);
  }

  /** Number of entries, including an entry that a lost race may have left unused. */
  get count(): number {
    return Math.min(Atomics.load(this.#header, W_NEXT), this.#entries);
  }

  /** True for exactly one caller for an id and type (0 data, 1 tree); this caller stores the blob. */
  claim(bytes: Uint8Array, offset: number, type: number): boolean {
    const hash = wordAt(bytes, offset);
    const tag = (wordAt(bytes, offset + 4) & PRINT_MASK) | (type === 1 ? TREE_BIT : 0);
    for (let level = 0; level < LEVELS.length; level++) {
      const slots = this.#levels[level]!;
      const mask = slots.length - 1;
      for (let i = 0; i < WINDOW; i++) {
        const slot = (hash + i) & mask;
        let value = Atomics.load(slots, slot);
        if (value === 0) {
          const entry = this.#write(bytes, offset);
          if (entry < 0) return true;
          value = Atomics.compareExchange(slots, slot, 0, (entry + 1) | tag);
          if (value === 0) {
            this.#spare = -1;
            return true;
          }
        }
        const entry = (value & ENTRY_MASK) - 1;
        if ((value & ~ENTRY_MASK) !== tag || !this.#equals(entry, bytes, offset)) continue;
        if (entry < this.#wanted.length) this.#wanted[entry] = 1;
        return false;
      }
    }
    return true;
  }

  /** Forgets all second claims so far. */
  forgetWanted(): void {
    this.#wanted.fill(0);
  }

  /** Tells whether a blob of one of these entries was claimed a second time. Only for the first `given` entries. */
  isWanted(from: number, to: number): boolean {
    return this.#wanted.subarray(from, to).includes(1);
  }

  /** Writes a digest into an entry. After a lost race the thread's next claim uses the same entry. */
  #write(bytes: Uint8Array, offset: number): number {
    if (this.#spare < 0) {
      const entry = Atomics.add(this.#header, W_NEXT, 1);
      if (entry >= this.#entries) {
        Atomics.store(this.#header, W_NEXT, this.#entries);
        return -1;
      }
      this.#spare = entry;
    }
    const base = this.#spare * 32;
    const ids = this.#ids;
    for (let i = 0; i < 32; i++) ids[base + i] = bytes[offset + i]!;
    return this.#spare;
  }

  #equals(entry: number, bytes: Uint8Array, offset: number): boolean {
    const base = entry * 32;
    const ids = this.#ids;
    for (let i = 0; i < 32; i++) if (ids[base + i] !== bytes[offset + i]) return false;
    return true;
  }
}

/** Returns four bytes of a digest as a number, to choose a slot. */
export function wordAt(bytes: Uint8Array, offset: number): number {
  return bytes[offset]! | (bytes[offset + 1]! << 8) | (bytes[offset + 2]! << 16) | (bytes[offset + 3]! << 24);
}
