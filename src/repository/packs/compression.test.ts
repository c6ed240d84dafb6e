import assert from "node:assert/strict";
import { test } from "node:test";
import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { newArena } from "../../native.ts";
import { Compressor, Decompressor } from "./compression.ts";
import { noiseBlob, textBlob } from "../testing-packs.ts";

function arenaOf(bytes: Uint8Array) {
  const arena = newArena(bytes.length);
  arena.bytes.set(bytes);
  return arena;
}

test("decompress returns the compressed bytes, at several levels and sizes", () => {
  for (const level of [1, 3, 9]) {
    const compressor = new Compressor(level);
    const decompressor = new Decompressor();
    for (const length of [200, 4096, 300_000, 2_000_000]) {
      const plain = textBlob(length, length);
      const target = newArena(length + 100);
      const size = compressor.compress(arenaOf(plain), 0, length, target, 50, length);
      assert.ok(size > 0 && size < length);
      assert.deepEqual(zstdDecompressSync(target.bytes.subarray(50, 50 + size)), plain);
      const back = newArena(length + 7);
      assert.ok(decompressor.decompress(target, 50, size, back, 7, length));
      assert.deepEqual(Buffer.from(back.bytes.subarray(7)), plain);
    }
  }
});

test("Compressor.compress returns 0 if the result is not smaller, there is no room, or compression is off", () => {
  const target = newArena(5000);
  assert.equal(new Compressor().compress(arenaOf(noiseBlob(1, 4096)), 0, 4096, target, 0, 5000), 0);
  assert.equal(new Compressor().compress(arenaOf(Buffer.from("a")), 0, 1, target, 0, 5000), 0);
  assert.equal(new Compressor().compress(arenaOf(textBlob(1, 4096)), 0, 4096, target, 0, 20), 0);
  assert.equal(new Compressor(0).compress(arenaOf(textBlob(1, 4096)), 0, 4096, target, 0, 5000), 0);
});

test("Compressor refuses a level that zstd does not have", () => {
  for (const level of [-1, 20, 1.5, Number.NaN]) assert.throws(() => new Compressor(level), { code: "usage" });
});

test("decompress returns false if the content does not have the stated length", () => {
  const plain = textBlob(3, 1000);
  const frame = arenaOf(zstdCompressSync(plain));
  const target = newArena(3000);
  const decompressor = new Decompressor();
  const into = (expected: number) => decompressor.decompress(frame, 0, frame.bytes.length, target, 0, expected);
  assert.equal(into(1000), true);
  for (const wrong of [999, 1001, 0, 1, 3001]) assert.equal(into(wrong), false, String(wrong));
});

test("decompress returns false for a truncated frame, and never writes past the stated length", () => {
  const plain = textBlob(4, 400);
  const frame = zstdCompressSync(plain);
  const decompressor = new Decompressor();
  const target = newArena(500);
  for (let length = 0; length < frame.length; length++) {
    assert.equal(decompressor.decompress(arenaOf(frame.subarray(0, length)), 0, length, target, 0, 400), false);
  }
  for (let at = 0; at < frame.length; at++) {
    const flipped = Buffer.from(frame);
    flipped[at] = flipped[at]! ^ 0x10;
    target.bytes.fill(0xee);
    decompressor.decompress(arenaOf(flipped), 0, flipped.length, target, 0, 400);
    assert.ok(target.bytes.subarray(400).every((byte) => byte === 0xee));
  }
});

test("decompress returns false for a zip bomb that exceeds the stated length", () => {
  const frame = arenaOf(zstdCompressSync(Buffer.alloc(50_000_000)));
  assert.equal(new Decompressor().decompress(frame, 0, frame.bytes.length, newArena(4096), 0, 4096), false);
});

test("compress uses at least level 3 for blobs of 16 to 512 KiB", () => {
  const sizeAt = (level: number, length: number): number =>
    new Compressor(level).compress(arenaOf(textBlob(5, length)), 0, length, newArena(length), 0, length);
  const plainSize = (level: number, length: number): number =>
    zstdCompressSync(textBlob(5, length), {
      params: { [constants.ZSTD_c_compressionLevel]: level },
      pledgedSrcSize: length,
    }).length;
  for (const length of [16_385, 100_000, 524_288]) {
    assert.equal(sizeAt(1, length), plainSize(3, length), String(length));
    assert.equal(sizeAt(9, length), plainSize(9, length), String(length));
  }
  for (const length of [16_384, 524_289]) assert.equal(sizeAt(1, length), plainSize(1, length), String(length));
});
