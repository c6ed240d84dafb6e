import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { Random, sourceText } from "./generator.ts";

const FILES_PER_FOLDER = 100;
const CORPUS_BYTES = 24 << 20;

/** Makes `count` files of 1 to 8 KiB, 100 to a folder: nine in ten read like source code, the others are half random. */
export function makeSmallFiles(folder: string, count: number): void {
  const random = new Random(20_24);
  const corpus = sourceText(CORPUS_BYTES, 7);
  const noise = new Uint8Array(4096);
  for (let i = 0; i < count; i++) {
    const group = Math.floor(i / FILES_PER_FOLDER);
    const parent = path.join(folder, `group-${Math.floor(group / 50)}`, `part-${group}`);
    if (i % FILES_PER_FOLDER === 0) mkdirSync(parent, { recursive: true });
    writeFileSync(
      path.join(parent, i % 10 === 9 ? `data-${i}.bin` : `module-${i}.ts`),
      content(i, { random, corpus, noise }),
    );
  }
}

/** Returns the bytes of a file: its own header, then a piece of the corpus, then noise in a binary file. */
function content(i: number, from: { random: Random; corpus: Uint8Array; noise: Uint8Array }): Uint8Array {
  const { random, corpus, noise } = from;
  const size = random.between(1024, 8193);
  const start = random.between(0, corpus.length - size);
  const bytes = Buffer.from(corpus.subarray(start, start + size));
  bytes.write(`// file ${i}\n`);
  if (i % 10 === 9) {
    random.fill(noise);
    bytes.set(noise.subarray(0, size >> 1), size >> 1);
  }
  return bytes;
}
