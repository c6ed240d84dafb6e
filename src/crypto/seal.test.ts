import assert from "node:assert/strict";
import { createDecipheriv } from "node:crypto";
import { test } from "node:test";
import fc from "fast-check";
import { CairnError } from "../errors.ts";
import { newArena } from "../native.ts";
import { newMasterKeys } from "./key-derivation.ts";
import { knownKeys, primitives, type Primitives } from "./primitives.ts";
import { BlobOpener, openMessage, SEAL_OVERHEAD, sealMessage, StageSealer } from "./seal.ts";

const proven = primitives();

/** An implementation whose every base is the given one. */
function withBase(implementation: Primitives, base: string): Primitives {
  return { ...implementation, fillRandom: (target, offset) => target.bytes.set(Buffer.from(base, "hex"), offset) };
}

function fill(stage: StageSealer, lengths: readonly number[]): void {
  for (const [number, length] of lengths.entries()) {
    const offset = stage.reserve(length);
    assert.ok(offset >= 0);
    assert.equal(offset % 16, 0);
    stage.arena.bytes.fill(number + 1, offset, offset + length);
    stage.commit(length);
  }
}

/** Sealed blobs of one stage as copies. */
function sealAll(stage: StageSealer, lengths: readonly number[]): Buffer[] {
  fill(stage, lengths);
  const total = stage.seal();
  const sealed: Buffer[] = [];
  let at = 0;
  for (const length of lengths) {
    sealed.push(Buffer.from(stage.arena.bytes.subarray(at, at + length + SEAL_OVERHEAD)));
    at += length + SEAL_OVERHEAD;
  }
  assert.equal(at, total);
  return sealed;
}

function counterOf(sealed: Buffer): bigint {
  return BigInt(`0x${sealed.subarray(0, 16).toString("hex")}`);
}

test("openMessage returns the plaintext that sealMessage sealed with a new IV each time", () => {
  const keys = newMasterKeys();
  const plain = Buffer.from("one two three");
  const first = sealMessage(keys, plain);
  const second = sealMessage(keys, plain);
  assert.equal(first.length, plain.length + SEAL_OVERHEAD);
  assert.notDeepEqual(first.subarray(0, 16), second.subarray(0, 16));
  assert.deepEqual(Buffer.from(openMessage(keys, first)), plain);
  assert.deepEqual(Buffer.from(openMessage(keys, second)), plain);
});

test("openMessage refuses a changed message, a truncated message and wrong keys", () => {
  const keys = newMasterKeys();
  const sealed = sealMessage(keys, Buffer.from("secret"));
  const damaged = (bytes: Uint8Array) => assert.throws(() => openMessage(keys, bytes), { code: "damaged" });
  for (let at = 0; at < sealed.length; at++) {
    const flipped = new Uint8Array(sealed);
    flipped[at] = flipped[at]! ^ 1;
    damaged(flipped);
  }
  for (let length = 0; length < sealed.length; length++) damaged(sealed.subarray(0, length));
  assert.throws(() => openMessage(newMasterKeys(), sealed), { code: "damaged" });
});

test("sealMessage and StageSealer refuse an empty plaintext", () => {
  assert.throws(() => sealMessage(newMasterKeys(), new Uint8Array(0)), CairnError);
  const stage = new StageSealer(newMasterKeys(), 4096);
  stage.reserve(10);
  assert.throws(() => stage.commit(0), /empty blob/);
});

test("each blob that StageSealer sealed can be opened alone, and its IV is the base plus its block number", () => {
  const lengths = [1, 15, 16, 17, 4096, 31, 32, 33, 2000];
  for (const implementation of [proven]) {
    const base = "00112233445566778899aabb00000010";
    const stage = new StageSealer(knownKeys(), 64 * 1024, withBase(implementation, base));
    const sealed = sealAll(stage, lengths);
    let offset = 16;
    for (const [number, blob] of sealed.entries()) {
      assert.equal(counterOf(blob), BigInt(`0x${base}`) + BigInt(offset / 16));
      const decipher = createDecipheriv("aes-256-ctr", knownKeys().encrypt, blob.subarray(0, 16));
      assert.deepEqual(decipher.update(blob.subarray(16, -16)), Buffer.alloc(lengths[number]!, number + 1));
      assert.deepEqual(Buffer.from(openMessage(knownKeys(), blob)), Buffer.alloc(lengths[number]!, number + 1));
      offset = Math.ceil((offset + lengths[number]! + 32) / 16) * 16;
    }
  }
});

test("StageSealer's counters carry within the lowest four bytes of the IV only", () => {
  for (const implementation of [proven]) {
    for (const base of [
      "ffffffffffffffffffffffff7ffffffe",
      "ffffffffffffffffffffffffffffffff",
      "000000000000000000000000000000fe",
      "01010101010101010101010100fffffd",
    ]) {
      const stage = new StageSealer(knownKeys(), 64 * 1024, withBase(implementation, base));
      const cleared = BigInt(`0x${base}`) & ~(1n << 31n);
      const sealed = sealAll(stage, [100, 200, 300]);
      assert.deepEqual(
        sealed.map((blob) => counterOf(blob) - cleared),
        [1n, 10n, 25n],
        base,
      );
      for (const [number, blob] of sealed.entries()) {
        assert.deepEqual(
          Buffer.from(openMessage(knownKeys(), blob)),
          Buffer.alloc((number + 1) * 100, number + 1),
          base,
        );
      }
    }
  }
});

test("counter ranges of blobs in one stage do not overlap, for any blob lengths", () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 500 }), { minLength: 1, maxLength: 40 }), (lengths) => {
      const stage = new StageSealer(knownKeys(), 64 * 1024);
      let free = 0n;
      for (const [number, blob] of sealAll(stage, lengths).entries()) {
        const first = counterOf(blob);
        assert.ok(first >= free);
        free = first + BigInt(Math.ceil(lengths[number]! / 16));
      }
    }),
    { numRuns: 50 },
  );
});

test("StageSealer uses a new random base for each stage", () => {
  const stage = new StageSealer(knownKeys(), 4096);
  const tops = new Set<string>();
  for (let round = 0; round < 50; round++) tops.add(sealAll(stage, [20])[0]!.subarray(0, 12).toString("hex"));
  assert.equal(tops.size, 50);
});

test("StageSealer.reserve returns -1 for a blob that does not fit, and grows an empty stage", () => {
  const stage = new StageSealer(knownKeys(), 1024);
  fill(stage, [500]);
  assert.equal(stage.reserve(600), -1);
  stage.seal();
  const [large] = sealAll(stage, [3_000_000]);
  assert.deepEqual(Buffer.from(openMessage(knownKeys(), large!)), Buffer.alloc(3_000_000, 1));
});

test("StageSealer.commit throws if no space was reserved for the blob", () => {
  const stage = new StageSealer(knownKeys(), 4096);
  assert.throws(() => stage.commit(10), /reserved/);
  fill(stage, [10]);
  assert.throws(() => stage.commit(10), /reserved/);
  stage.seal();
  assert.throws(() => stage.commit(10), /reserved/);
});

test("StageSealer refuses further calls after seal has failed", () => {
  let broken = true;
  const failing: Primitives = {
    ...proven,
    newCipher(keys) {
      const cipher = proven.newCipher(keys);
      return {
        counter: (...parts) => cipher.counter(...parts),
        nonces(...parts) {
          if (broken) throw new Error("no more");
          cipher.nonces(...parts);
        },
        authenticate: (...parts) => cipher.authenticate(...parts),
      };
    },
  };
  const stage = new StageSealer(knownKeys(), 4096, failing);
  fill(stage, [10, 20]);
  assert.throws(() => stage.seal(), /no more/);
  broken = false;
  assert.throws(() => stage.seal(), /never sealed again/);
  stage.reserve(5);
  assert.throws(() => stage.commit(5), /never sealed again/);
});

test("BlobOpener leaves the memory unchanged if the blob is damaged, and decrypts a sound blob in place", () => {
  for (const implementation of [proven]) {
    const keys = newMasterKeys();
    const plain = Buffer.alloc(1000, 3);
    const arena = newArena(1100);
    arena.bytes.set(sealMessage(keys, plain), 7);
    const opener = new BlobOpener(keys, implementation);
    arena.bytes[500] = arena.bytes[500]! ^ 4;
    const before = Buffer.from(arena.bytes);
    assert.throws(() => opener.open(arena, 7, 1032, arena, 23), { code: "damaged" });
    assert.deepEqual(Buffer.from(arena.bytes), before);
    arena.bytes[500] = arena.bytes[500]! ^ 4;
    assert.equal(opener.open(arena, 7, 1032, arena, 23), 1000);
    assert.deepEqual(Buffer.from(arena.bytes.subarray(23, 1023)), plain);
  }
});
