import assert from "node:assert/strict";
import { createCipheriv, hash } from "node:crypto";
import { test } from "node:test";
import { newArena } from "../native.ts";
import { givesKnownAnswers, knownKeys, primitives, type Primitives } from "./primitives.ts";

const proven = primitives();

test("this Node's libcrypto passes the self-test", () => {
  assert.ok(givesKnownAnswers(proven));
});

test("the self-test fails if a hash is wrong or random bytes are all zero", () => {
  const wrongHash: Primitives = {
    ...proven,
    sha256: (_source, _offset, _length, target, at) => void target.bytes.fill(1, at, at + 32),
  };
  const noRandom: Primitives = {
    ...proven,
    fillRandom: (target, offset, length) => void target.bytes.fill(0, offset, offset + length),
  };
  assert.equal(givesKnownAnswers(wrongHash), false);
  assert.equal(givesKnownAnswers(noRandom), false);
});

test("the cipher and sha256 return the same bytes as node:crypto at many lengths and offsets", () => {
  const iv = Buffer.from("0102030405060708ffffffffffffffff", "hex");
  const plain = Buffer.from(Array.from({ length: 700 }, (_, index) => (index * 31) & 0xff));
  const counter = newArena(16);
  const data = newArena(700);
  const out = newArena(1024);
  data.bytes.set(plain);
  for (let length = 0; length < 600; length += 7) {
    const offset = length % 23;
    counter.bytes.set(iv);
    proven.newCipher(knownKeys()).counter(counter, 0, data, offset, out, 5, length);
    const wanted = createCipheriv("aes-256-ctr", knownKeys().encrypt, iv).update(
      plain.subarray(offset, offset + length),
    );
    assert.deepEqual(Buffer.from(out.bytes.subarray(5, 5 + length)), wanted, `length ${length}`);
    proven.sha256(data, offset, length, out, 950);
    const digest = hash("sha256", plain.subarray(offset, offset + length), "buffer");
    assert.deepEqual(Buffer.from(out.bytes.subarray(950, 982)), digest, `length ${length}`);
  }
});

test("fillRandom returns different bytes on each call", () => {
  const target = newArena(64);
  proven.fillRandom(target, 0, 32);
  proven.fillRandom(target, 32, 32);
  assert.notDeepEqual(target.bytes.subarray(0, 32), target.bytes.subarray(32));
});
