import assert from "node:assert/strict";
import { test } from "node:test";
import { newArena } from "../native.ts";
import { sha256, Sha256Stream } from "./hash.ts";
import { clampR, hashAt } from "./primitives.ts";
import { deriveKeys, newMasterKeys, splitKeys } from "./key-derivation.ts";

test("deriveKeys returns the scrypt test vector of RFC 7914", async () => {
  const keys = await deriveKeys("pleaseletmein", Buffer.from("SodiumChloride"), { N: 16_384, r: 8, p: 1 });
  const all = Buffer.concat([keys.encrypt, keys.macK, keys.macR]).toString("hex");
  assert.equal(
    all,
    "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887",
  );
});

test("deriveKeys refuses scrypt parameters that are invalid or too large", async () => {
  for (const parameters of [
    { N: 2 ** 30, r: 8, p: 1 },
    { N: 1000, r: 8, p: 1 },
    { N: 0, r: 8, p: 1 },
    { N: 1024, r: 0, p: 1 },
    { N: 1024, r: 8, p: 2 ** 31 },
    { N: 1024.5, r: 8, p: 1 },
    { N: Number.NaN, r: 8, p: 1 },
  ]) {
    await assert.rejects(deriveKeys("x", Buffer.alloc(64), parameters), { code: "damaged" });
  }
});

test("newMasterKeys gives different, clamped keys each time", () => {
  const first = newMasterKeys();
  const second = newMasterKeys();
  assert.notDeepEqual(first.encrypt, second.encrypt);
  assert.deepEqual(first.macR, clampR(first.macR));
  assert.deepEqual([first.encrypt.length, first.macK.length, first.macR.length], [32, 16, 16]);
  assert.ok(first.encrypt.some((byte) => byte !== 0));
});

test("splitKeys returns copies, so that the caller may wipe the source bytes", () => {
  const source = Buffer.alloc(64, 9);
  const keys = splitKeys(source);
  source.fill(0);
  assert.deepEqual(Buffer.from(keys.encrypt), Buffer.alloc(32, 9));
});

test("sha256, hashAt and Sha256Stream return the same digest", () => {
  const arena = newArena(1000);
  arena.bytes.fill(65, 100, 900);
  const target = newArena(40);
  hashAt(arena, 100, 800, target, 8);
  const stream = new Sha256Stream();
  stream.update(arena.bytes.subarray(100, 300));
  stream.update(arena.bytes.subarray(300, 900));
  const whole = Buffer.from(sha256(arena.bytes.subarray(100, 900)));
  assert.deepEqual(Buffer.from(target.bytes.subarray(8)), whole);
  assert.deepEqual(Buffer.from(stream.digest()), whole);
});
