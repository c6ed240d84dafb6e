import assert from "node:assert/strict";
import { createCipheriv } from "node:crypto";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import { nativeAvailable, newArena } from "../native.ts";
import { givesKnownAnswers, knownKeys } from "./known-answers.ts";
import { probeNativePrimitives } from "./native-primitives.ts";
import { nodePrimitives } from "./node-primitives.ts";
import type { Primitives } from "./contract.ts";

const native = probeNativePrimitives();
const both: Primitives[] = native === null ? [nodePrimitives()] : [nodePrimitives(), native];

test("native primitives are chosen when native calls work", () => {
  assert.equal(native !== null, nativeAvailable());
});

test("both implementations give the known answers", () => {
  for (const implementation of both) assert.ok(givesKnownAnswers(implementation), implementation.name);
});

test("known answers fail when one result is wrong", () => {
  const node = nodePrimitives();
  const wrongHash: Primitives = {
    ...node,
    sha256: (_source, _offset, _length, target, at) => void target.bytes.fill(1, at, at + 32),
  };
  const noRandom: Primitives = {
    ...node,
    fillRandom: (target, offset, length) => void target.bytes.fill(0, offset, offset + length),
  };
  assert.equal(givesKnownAnswers(wrongHash), false);
  assert.equal(givesKnownAnswers(noRandom), false);
});

test("known ciphertext is what AES-256-CTR of node:crypto gives over a carrying counter", () => {
  const iv = Buffer.from("0102030405060708ffffffffffffffff", "hex");
  const plain = Buffer.alloc(300, 7);
  const wanted = createCipheriv("aes-256-ctr", knownKeys().encrypt, iv).update(plain);
  for (const implementation of both) {
    const counter = newArena(16);
    const data = newArena(300);
    counter.bytes.set(iv);
    data.bytes.set(plain);
    implementation.newCipher(knownKeys()).counter(counter, 0, data, 0, data, 0, 300);
    assert.deepEqual(Buffer.from(data.bytes), wanted, implementation.name);
  }
});

test(
  "both implementations agree at every length and offset",
  { skip: native === null ? "needs native calls" : false },
  () => {
    const [node, fast] = both as [Primitives, Primitives];
    const ciphers = [node.newCipher(knownKeys()), fast.newCipher(knownKeys())] as const;
    const data = newArena(700);
    for (let index = 0; index < 700; index++) data.bytes[index] = (index * 31) & 0xff;
    const blocks = [newArena(64), newArena(64)] as const;
    const results = [newArena(1024), newArena(1024)] as const;
    for (let length = 0; length < 600; length += 7) {
      const offset = length % 23;
      for (const [index, cipher] of ciphers.entries()) {
        const out = results[index]!;
        const nonces = blocks[index]!;
        nonces.bytes.set(data.bytes.subarray(length, length + 64));
        cipher.counter(data, offset, data, offset, out, 5, length);
        cipher.nonces(nonces, 4);
        cipher.authenticate(nonces, 3, data, offset, length, out, 900);
        both[index]!.sha256(data, offset, length, out, 950);
      }
      assert.deepEqual(results[0].bytes, results[1].bytes, `length ${length}`);
      assert.deepEqual(blocks[0].bytes, blocks[1].bytes, `length ${length}`);
    }
  },
);

test("random bytes differ from call to call when drawn from the kernel", () => {
  for (const implementation of both) {
    const target = newArena(64);
    implementation.fillRandom(target, 0, 32);
    implementation.fillRandom(target, 32, 32);
    assert.notDeepEqual(target.bytes.subarray(0, 32), target.bytes.subarray(32), implementation.name);
  }
});

test("node:crypto and sodium-native are chosen when native calls are turned off", () => {
  const script = `const { primitives } = await import(${JSON.stringify(new URL("./primitives.ts", import.meta.url).href)}); process.stdout.write(primitives().name);`;
  const env = { ...process.env, CAIRN_NO_NATIVE: "1" };
  assert.equal(
    execFileSync(process.execPath, ["--input-type=module", "-e", script], { env, encoding: "utf8" }),
    "node",
  );
});

test(
  "sodium-native is not loaded when native calls work",
  { skip: native === null ? "needs native calls" : false },
  () => {
    const url = new URL("./primitives.ts", import.meta.url).href;
    const script = `const { primitives } = await import(${JSON.stringify(url)}); primitives();
    const { createRequire } = await import("node:module");
    process.stdout.write(String(Object.keys(createRequire(${JSON.stringify(url)}).cache).some((name) => name.includes("sodium"))));`;
    assert.equal(execFileSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8" }), "false");
  },
);
