import type { BlobPlaceNumbers } from "./blob-table.ts";

/** Words of a row: entry, pack number, offset, length, plain length. */
const ROW = 5;
const HEADER_WORDS = 1;
const W_COUNT = 0;
const NONE = 0;

/**
 * Further places of blobs, in addition to the place in the table, as rows in shared memory. Most repositories have no
 * rows. One thread adds rows; threads that get the buffer afterwards look them up.
 */
export class OtherPlaces {
  #buffer: SharedArrayBuffer;
  #words: Uint32Array;
  /**
   * `#last[entry]` is the entry's newest row (from 1); `#before[row - 1]` links to the row before it. Both are made by
   * the first lookup.
   */
  #last = new Uint32Array(0);
  #before = new Uint32Array(0);
  #linked = 0;

  constructor(buffer: SharedArrayBuffer = new SharedArrayBuffer(HEADER_WORDS * 4)) {
    this.#buffer = buffer;
    this.#words = new Uint32Array(buffer);
  }

  get buffer(): SharedArrayBuffer {
    return this.#buffer;
  }

  get count(): number {
    return this.#words[W_COUNT]!;
  }

  /** The rows as bytes. To load a file, call `reserve`, then fill these bytes. */
  get rows(): Uint8Array {
    return new Uint8Array(this.#buffer, HEADER_WORDS * 4, this.count * ROW * 4);
  }

  /** Makes `rows` empty rows; the caller fills them through the property `rows`. */
  reserve(rows: number): void {
    this.#grow(rows);
    this.#words[W_COUNT] = rows;
  }

  add(entry: number, { pack, offset, length, uncompressedLength }: BlobPlaceNumbers): void {
    const row = this.count;
    if (HEADER_WORDS + (row + 1) * ROW > this.#words.length) this.#grow(Math.max(64, row * 2));
    this.#words.set([entry, pack, offset, length, uncompressedLength], HEADER_WORDS + row * ROW);
    this.#words[W_COUNT] = row + 1;
  }

  /** Returns the places of an entry, the newest first. */
  of(entry: number): BlobPlaceNumbers[] {
    this.#link();
    const places: BlobPlaceNumbers[] = [];
    for (let row = this.#last[entry] ?? NONE; row !== NONE; row = this.#before[row - 1]!)
      places.push(this.#at(row - 1));
    return places;
  }

  /** Yields the entry of each row; yields an entry several times if it has several places. */
  *entries(): Generator<number> {
    for (let row = 0; row < this.count; row++) yield this.#words[HEADER_WORDS + row * ROW]!;
  }

  /** Returns a copy with other pack numbers. Drops the rows for which `packNumber` returns a negative number. */
  renumbered(packNumber: (pack: number) => number): OtherPlaces {
    const copy = new OtherPlaces();
    for (let row = 0; row < this.count; row++) {
      const place = this.#at(row);
      const pack = packNumber(place.pack);
      if (pack >= 0) copy.add(this.#words[HEADER_WORDS + row * ROW]!, { ...place, pack });
    }
    return copy;
  }

  #at(row: number): BlobPlaceNumbers {
    const at = HEADER_WORDS + row * ROW;
    const [, pack, offset, length, uncompressedLength] = this.#words.subarray(at, at + ROW);
    return { pack: pack!, offset: offset!, length: length!, uncompressedLength: uncompressedLength! };
  }

  #grow(rows: number): void {
    const grown = new SharedArrayBuffer((HEADER_WORDS + rows * ROW) * 4);
    const words = new Uint32Array(grown);
    words.set(this.#words.subarray(0, HEADER_WORDS + this.count * ROW));
    this.#buffer = grown;
    this.#words = words;
  }

  #link(): void {
    const { count } = this;
    if (this.#linked === count) return;
    let most = this.#last.length - 1;
    for (let row = this.#linked; row < count; row++) most = Math.max(most, this.#words[HEADER_WORDS + row * ROW]!);
    if (most >= this.#last.length) {
      const last = new Uint32Array(most + 1);
      last.set(this.#last);
      this.#last = last;
    }
    const before = new Uint32Array(count);
    before.set(this.#before.subarray(0, this.#linked));
    this.#before = before;
    for (; this.#linked < count; this.#linked++) {
      const entry = this.#words[HEADER_WORDS + this.#linked * ROW]!;
      before[this.#linked] = this.#last[entry]!;
      this.#last[entry] = this.#linked + 1;
    }
  }
}
