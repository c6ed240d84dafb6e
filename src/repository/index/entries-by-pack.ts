import type { BlobIndex } from "./blob-index.ts";

/** The index entries at the time of construction, by the pack that the index reads them from. */
export class EntriesByPack {
  readonly #index: BlobIndex;
  /** The entries of pack `n` are at `#begins[n]` up to `#begins[n + 1]`. */
  readonly #entries: Uint32Array;
  readonly #begins: Uint32Array;

  constructor(index: BlobIndex) {
    const { count, packCount, packOf } = index.table;
    this.#index = index;
    const begins = new Uint32Array(packCount + 1);
    for (let entry = 0; entry < count; entry++) begins[packOf[entry]! + 1]!++;
    for (let pack = 0; pack < packCount; pack++) begins[pack + 1]! += begins[pack]!;
    const next = begins.slice();
    this.#entries = new Uint32Array(count);
    for (let entry = 0; entry < count; entry++) this.#entries[next[packOf[entry]!]!++] = entry;
    this.#begins = begins;
  }

  /** Returns the entries of a pack (64 hex digits), in no order. */
  of(pack: string): Uint32Array {
    const number = this.#index.numberOf(Buffer.from(pack, "hex"));
    return number < 0 ? new Uint32Array(0) : this.#entries.subarray(this.#begins[number], this.#begins[number + 1]);
  }
}
