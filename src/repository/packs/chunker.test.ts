import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import fc from "fast-check";
import { CHUNK_DATA_START, Chunker, gearTable, MAX_CHUNK, MIN_CHUNK, newChunkMemory } from "./chunker.ts";
import { noiseBlob } from "../testing-packs.ts";

const POLYNOMIAL = "25b468838dcb75";

interface Case {
  polynomial: string;
  content: { kind: "lcg" | "period"; seed: number; bytes: number; period?: number };
  gear: string[];
  lengths: number[];
}

function lcg(seed: number, count: number): Uint8Array {
  const out = new Uint8Array(count);
  let state = seed;
  for (let at = 0; at < count; at++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    out[at] = state >>> 24;
  }
  return out;
}

function contentOf({ kind, seed, bytes, period = 0 }: Case["content"]): Uint8Array {
  if (kind === "lcg") return lcg(seed, bytes);
  const unit = lcg(seed, period);
  return Uint8Array.from({ length: bytes }, (_, at) => unit[at % period]!);
}

/** Chunk lengths of one file that lies at [start, end), fed in pieces of the given sizes in turn. */
function lengthsOf(
  chunker: Chunker,
  range: { start: number; end: number },
  feeds: readonly number[] = [range.end],
): number[] {
  const lengths: number[] = [];
  let chunkStart = range.start;
  let at = range.start;
  for (let turn = 0; at < range.end; turn++) {
    const end = Math.min(range.end, at + feeds[turn % feeds.length]!);
    for (;;) {
      const cut = chunker.cut(at, end, end === range.end);
      if (cut < 0) break;
      lengths.push(cut - chunkStart);
      chunkStart = cut;
      at = cut;
      if (cut === end) break;
    }
    at = end;
  }
  assert.equal(chunkStart, range.end);
  return lengths;
}

/** A chunker on the kernel with these bytes in its memory. */
function kernelOver(polynomial: string, bytes: Uint8Array) {
  const memory = newChunkMemory(bytes.length);
  new Uint8Array(memory.buffer).set(bytes, CHUNK_DATA_START);
  return {
    chunker: new Chunker(polynomial, memory),
    range: { start: CHUNK_DATA_START, end: CHUNK_DATA_START + bytes.length },
  };
}

test("the WebAssembly and TypeScript chunkers cut the test vectors at the recorded places", () => {
  const { cases } = JSON.parse(
    readFileSync(new URL("../../../test/vectors/chunker.json", import.meta.url), "utf8"),
  ) as {
    cases: Case[];
  };
  for (const { polynomial, content, gear, lengths } of cases) {
    const table = Buffer.from(gearTable(polynomial));
    assert.deepEqual(
      [0, 1, 255].map((index) =>
        table
          .readBigUInt64LE(index * 8)
          .toString(16)
          .padStart(16, "0"),
      ),
      gear,
    );
    const bytes = contentOf(content);
    const { chunker, range } = kernelOver(polynomial, bytes);
    assert.deepEqual(lengthsOf(chunker, range), lengths, JSON.stringify(content));
    assert.deepEqual(
      lengthsOf(new Chunker(polynomial, bytes), { start: 0, end: bytes.length }),
      lengths,
      JSON.stringify(content),
    );
  }
});

test("the WebAssembly and TypeScript chunkers cut at the same places for any sizes of input", () => {
  const bytes = lcg(7, 5_000_000);
  const { chunker, range } = kernelOver(POLYNOMIAL, bytes);
  const plain = new Chunker(POLYNOMIAL, bytes);
  const wanted = lengthsOf(chunker, range);
  assert.ok(wanted.length > 2);
  const size = fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1000, max: 2_000_000 }));
  fc.assert(
    fc.property(
      fc.array(size, { minLength: 1, maxLength: 6 }).filter((sizes) => Math.max(...sizes) > 1000),
      (feeds) => {
        assert.deepEqual(lengthsOf(chunker, range, feeds), wanted);
      },
    ),
    { numRuns: 60 },
  );
  for (const feeds of [[1_000_003], [65_536, 1], [524_288, 7, 524_287]]) {
    assert.deepEqual(lengthsOf(plain, { start: 0, end: bytes.length }, feeds), wanted);
  }
});

test("the WebAssembly and TypeScript chunkers agree on arbitrary content and polynomials", () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 1_000_000 }), fc.bigInt({ min: 1n, max: 2n ** 54n }), (seed, polynomial) => {
      const bytes = noiseBlob(seed, 2_000_000 + (seed % 17));
      const hex = polynomial.toString(16);
      const { chunker, range } = kernelOver(hex, bytes);
      assert.deepEqual(lengthsOf(chunker, range), lengthsOf(new Chunker(hex, bytes), { start: 0, end: bytes.length }));
    }),
    { numRuns: 8 },
  );
});

test("an insertion changes only the chunks near it", () => {
  const bytes = lcg(11, 12_000_000);
  const changed = Buffer.concat([bytes.subarray(0, 100_000), Buffer.from("inserted"), bytes.subarray(100_000)]);
  const endsOf = (content: Uint8Array) => {
    const { chunker, range } = kernelOver(POLYNOMIAL, content);
    let at = 0;
    return lengthsOf(chunker, range).map((length) => content.length - (at += length));
  };
  const before = endsOf(bytes);
  const after = new Set(endsOf(changed));
  assert.ok(before.filter((end) => after.has(end)).length >= before.length - 3);
});

test("chunks are within the minimum and maximum size and average about 1.2 MiB", () => {
  const bytes = Buffer.alloc(64 * 1024 * 1024);
  for (let part = 0; part < 64; part++) bytes.set(noiseBlob(part + 1, 1024 * 1024), part * 1024 * 1024);
  const { chunker, range } = kernelOver(POLYNOMIAL, bytes);
  const lengths = lengthsOf(chunker, range);
  for (const length of lengths.slice(0, -1)) assert.ok(length > MIN_CHUNK && length <= MAX_CHUNK);
  const mean = bytes.length / lengths.length;
  assert.ok(mean > 1_000_000 && mean < 1_500_000, String(mean));
});

test("the chunker returns no chunk for an empty file, and reset discards an unfinished chunk", () => {
  const bytes = lcg(5, 3_000_000);
  const chunker = new Chunker(POLYNOMIAL, bytes);
  assert.equal(chunker.cut(0, 0, true), -1);
  const wanted = lengthsOf(chunker, { start: 0, end: bytes.length });
  chunker.cut(0, 900_000, false);
  chunker.reset();
  assert.deepEqual(lengthsOf(chunker, { start: 0, end: bytes.length }), wanted);
});

test("gearTable throws damaged for a polynomial that is not lower-case hex digits", () => {
  for (const wrong of ["", "xyz", "25B468838dcb75", "0x25b468838dcb75", "25b468838dcb7525b4"]) {
    assert.throws(() => gearTable(wrong), { code: "damaged" });
  }
});
