import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { objectIdOf } from "../../ids.ts";
import { MAX_CHUNK, MIN_CHUNK } from "./chunker.ts";
import { StreamCutter } from "./stream-cutter.ts";
import { noiseBlob } from "../testing-packs.ts";

const POLYNOMIAL = "25b468838dcb75";

function cut(content: Uint8Array, feed: (turn: number) => number): { lengths: number[]; ids: string; sha256: string } {
  const lengths: number[] = [];
  const joined = createHash("sha256");
  const cutter = new StreamCutter({
    polynomial: POLYNOMIAL,
    onPiece(id, plain, offset, length) {
      const piece = plain.bytes.subarray(offset, offset + length);
      assert.equal(createHash("sha256").update(piece).digest("hex"), objectIdOf(id));
      joined.update(piece);
      lengths.push(length);
    },
  });
  for (let at = 0, turn = 0; at < content.length; turn++) {
    const end = Math.min(content.length, at + feed(turn));
    cutter.write(content.subarray(at, end));
    at = end;
  }
  const { ids, size, sha256 } = cutter.finish();
  assert.equal(size, content.length);
  assert.equal(joined.digest("hex"), objectIdOf(sha256));
  return { lengths, ids: objectIdOf(sha256) + Buffer.from(ids).toString("hex"), sha256: objectIdOf(sha256) };
}

test("StreamCutter cuts a large stream at the same places for any sizes of input", () => {
  const content = noiseBlob(7, 40 * 1024 * 1024);
  const whole = cut(content, () => content.length);
  assert.ok(whole.lengths.length > 20);
  assert.equal(
    whole.lengths.reduce((sum, length) => sum + length, 0),
    content.length,
  );
  for (const length of whole.lengths.slice(0, -1)) assert.ok(length >= MIN_CHUNK && length <= MAX_CHUNK);
  assert.equal(whole.sha256, createHash("sha256").update(content).digest("hex"));
  for (const feed of [(turn: number) => 1 + ((turn * 7919) % 200_000), () => 65_536, () => MAX_CHUNK + 1])
    assert.deepEqual(cut(content, feed), whole);
});

test("StreamCutter cuts content without cut points at the maximum length", () => {
  assert.deepEqual(cut(new Uint8Array(2 * MAX_CHUNK + 5), () => 1_000_003).lengths, [MAX_CHUNK, MAX_CHUNK, 5]);
  assert.deepEqual(cut(noiseBlob(1, MIN_CHUNK), () => 1000).lengths, [MIN_CHUNK]);
  assert.deepEqual(cut(new Uint8Array(0), () => 1).lengths, []);
});
