/** A set of entry numbers of an index, one bit each. */
export class EntrySet {
  #bits: Uint8Array;

  /** `count`: number of index entries. The set grows if later entries are added. */
  constructor(count: number) {
    this.#bits = new Uint8Array((count >>> 3) + 1);
  }

  copy(): EntrySet {
    const copy = new EntrySet(0);
    copy.#bits = Uint8Array.from(this.#bits);
    return copy;
  }

  has(entry: number): boolean {
    return (this.#bits[entry >>> 3]! & (1 << (entry & 7))) !== 0;
  }

  /** Returns true if the entry is new in the set. */
  add(entry: number): boolean {
    const at = entry >>> 3;
    if (at >= this.#bits.length) {
      const grown = new Uint8Array(Math.max(at + 1, this.#bits.length * 2));
      grown.set(this.#bits);
      this.#bits = grown;
    }
    const bit = 1 << (entry & 7);
    if ((this.#bits[at]! & bit) !== 0) return false;
    this.#bits[at]! |= bit;
    return true;
  }
}
