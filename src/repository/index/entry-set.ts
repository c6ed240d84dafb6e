/** Entries of an index by their numbers, a bit each. */
export class EntrySet {
  #bits: Uint8Array;

  /** `count`: entries that the index has; room for more is made when they are added. */
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

  /** True when it was not in it before. */
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
