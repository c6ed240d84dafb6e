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

class StaticModel implements Embedder {
  readonly #numbers: Int8Array;
  readonly #places = new Map<string, number>();
  readonly #known = new Map<string, readonly number[]>();

  constructor(file: Buffer) {
    const length = file.readUInt32LE(0);
    const [, ...parts] = file.toString("utf8", 4, 4 + length).split("\n");
    for (const [place, part] of parts.entries()) this.#places.set(part, place);
    this.#numbers = new Int8Array(file.buffer, file.byteOffset + 4 + length, parts.length * EMBEDDED_DIMENSIONS);
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

  /** The longest known parts of a word, from its beginning; empty if a part is unknown. */
  #partsOf(word: string): readonly number[] {
    const known = this.#known.get(word);
    if (known !== undefined) return known;
    if (this.#known.size >= MOST_KNOWN) this.#known.clear();
    const parts = word.length > LONGEST_WORD ? [] : this.#split(word);
    this.#known.set(word, parts);
    return parts;
  }

  #split(word: string): number[] {
    const parts: number[] = [];
    for (let from = 0; from < word.length;) {
      let to = word.length;
      let place: number | undefined;
      for (; to > from; to--) {
        place = this.#places.get((from > 0 ? "##" : "") + word.slice(from, to));
        if (place !== undefined) break;
      }
      if (place === undefined) return [];
      parts.push(place);
      from = to;
    }
    return parts;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Only frees memory.
  }
}

let loaded: StaticModel | undefined;

/** `table`: path of the model's file. */
export function openModel(table: string): Embedder {
  loaded ??= new StaticModel(zstdDecompressSync(readRegular(table)));
  return loaded;
}
