import { zstdDecompressSync } from "node:zlib";
import { readRegular } from "../fs/regular-file.ts";
import { type Embedder, EMBEDDED_DIMENSIONS, normalized } from "./embedding.ts";

/**
 * The embedded model: a vector for each part of a word, made from all-MiniLM-L6-v2 by tools/distill-embedding.ts. A text's
 * vector is the sum of its parts'. English; no network, no native code.
 */

const CJK = "\\u3400-\\u4dbf\\u4e00-\\u9fff\\uf900-\\ufaff";
const WORDS = new RegExp(`[${CJK}]|(?:(?![${CJK}])[\\p{L}\\p{N}])+|[^\\s\\p{L}\\p{N}]`, "gu");
const LONGEST_WORD = 100;
const MOST_KNOWN = 20_000;
const LINE_FEED = 10;
/** The present table is 8 045 166 bytes: one piece takes half of the time of many. */
const PIECE = 8 << 20;

class StaticModel implements Embedder {
  readonly #numbers: Int8Array;
  readonly #parts: Parts;
  readonly #known = new Map<string, readonly number[]>();

  constructor(file: Buffer) {
    const end = 4 + file.readUInt32LE(0);
    this.#parts = new Parts(file.subarray(file.indexOf(LINE_FEED, 4) + 1, end));
    this.#numbers = new Int8Array(file.buffer, file.byteOffset + end, file.length - end);
  }

  async embed(texts: readonly string[]): Promise<Float32Array[]> {
    return texts.map((text) => this.#vector(text));
  }

  #vector(text: string): Float32Array {
    const vector = new Float32Array(EMBEDDED_DIMENSIONS);
    const plain = text
      .normalize("NFD")
      .replaceAll(/\p{Mn}+/gu, "")
      .toLowerCase();
    let isEmpty = true;
    for (const [word] of plain.matchAll(WORDS))
      for (const place of this.#partsOf(word)) {
        const from = place * EMBEDDED_DIMENSIONS;
        for (let k = 0; k < EMBEDDED_DIMENSIONS; k++) vector[k]! += this.#numbers[from + k]!;
        isEmpty = false;
      }
    // Texts without any known part have the same distance to all others.
    return normalized(isEmpty || vector.every((each) => each === 0) ? vector.fill(1) : vector);
  }

  #partsOf(word: string): readonly number[] {
    const known = this.#known.get(word);
    if (known !== undefined) return known;
    if (this.#known.size >= MOST_KNOWN) this.#known.clear();
    const parts = word.length > LONGEST_WORD ? [] : this.#parts.of(word);
    this.#known.set(word, parts);
    return parts;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Only frees memory.
  }
}

/**
 * The names of all parts, one a line, with a hash table of the lines: a search needs only a few of 30 000 names, so there is no
 * string of each. A name that begins with `##` continues a word.
 */
class Parts {
  readonly #names: Buffer;
  /** The first byte of each line, and of a line after the last. */
  readonly #starts = [0];
  /** Numbers of lines from 1, each at the first free slot from its hash on. */
  readonly #slots: Uint32Array;

  constructor(names: Buffer) {
    this.#names = names;
    this.#slots = new Uint32Array(1 << (32 - Math.clz32(names.length)));
    let hash = 0;
    for (let at = 0, start = 0; at <= names.length; at++)
      if (at < names.length && names[at] !== LINE_FEED) hash = hashed(hash, names[at]!);
      else {
        this.#slots[this.#slotOf(names, hash, { from: start, to: at })] = this.#starts.length;
        start = this.#starts[this.#starts.length] = at + 1;
        hash = 0;
      }
  }

  /** Returns the longest known parts of a word, from its beginning; empty if a part is unknown. */
  of(word: string): number[] {
    const parts: number[] = [];
    const bytes = Buffer.from(`##${word}`);
    for (let done = 2, to = 0; done < bytes.length; done = to) {
      const isFirst = parts.length === 0;
      // The two bytes before the rest of the word belong to a part that was found, and are not needed any more.
      if (!isFirst) bytes.fill("#", done - 2, done);
      const from = isFirst ? done : done - 2;
      let place = -1;
      for (let at = from, hash = 0; at < bytes.length;) {
        hash = hashed(hash, bytes[at++]!);
        const line = this.#slots[this.#slotOf(bytes, hash, { from, to: at })]!;
        if (line > 0 && at > done) [place, to] = [line - 1, at];
      }
      if (place < 0) return [];
      parts.push(place);
    }
    return parts;
  }

  /** Returns the slot of a name, or the free slot in which it belongs. */
  #slotOf(bytes: Buffer, hash: number, { from, to }: { from: number; to: number }): number {
    const mask = this.#slots.length - 1;
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const line = this.#slots[slot]!;
      if (line === 0) return slot;
      if (bytes.compare(this.#names, this.#starts[line - 1], this.#starts[line]! - 1, from, to) === 0) return slot;
    }
  }
}

/** A step of the hash FNV-1a. */
function hashed(hash: number, byte: number): number {
  return Math.imul(hash ^ byte, 16777619);
}

let loaded: StaticModel | undefined;

/** `table`: path of the model's file. */
export function openModel(table: string): Embedder {
  loaded ??= new StaticModel(zstdDecompressSync(readRegular(table), { chunkSize: PIECE }));
  return loaded;
}
