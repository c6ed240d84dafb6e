import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { ByteReader, ByteWriter, compareBytes, joinPath, putDecimal } from "./bytes.ts";

test("ByteReader returns the integers of every width that ByteWriter wrote", () => {
  const u32 = fc.integer({ min: 0, max: 0xffffffff });
  fc.assert(
    fc.property(u32, (a) => {
      const w = new ByteWriter(1);
      w.u8(a & 255);
      w.u32(a);
      const r = new ByteReader(w.view(), "test");
      assert.deepEqual([r.u8(), r.u32(), r.remaining], [a & 255, a, 0]);
    }),
  );
});

test("ByteWriter's decimal, hex and text write the same bytes as Node", () => {
  fc.assert(
    fc.property(fc.maxSafeInteger().map(Math.abs), fc.uint8Array(), fc.string({ unit: "binary" }), (n, bytes, text) => {
      const w = new ByteWriter(1);
      w.decimal(n);
      w.hex(bytes, 0, bytes.length);
      w.text(text);
      w.append(bytes);
      const head = Buffer.from(`${n}${Buffer.from(bytes).toString("hex")}${text}`);
      assert.deepEqual(Buffer.from(w.copy()), Buffer.concat([head, bytes]));
    }),
  );
  const digits = new Uint8Array(20);
  for (let n = 1; n <= Number.MAX_SAFE_INTEGER; n *= 10) {
    for (const v of [n - 1, n, n + 1]) {
      assert.equal(Buffer.from(digits.subarray(0, putDecimal(digits, 0, v))).toString(), String(v));
    }
  }
});

test("appendRange copies short and long ranges of bytes", () => {
  const source = Uint8Array.from({ length: 200 }, (_, i) => i);
  const w = new ByteWriter(16);
  w.appendRange(source, 3, 10);
  w.appendRange(source, 0, 200);
  assert.deepEqual([...w.view()], [...source.subarray(3, 10), ...source]);
  const memory = w.bytes;
  w.reset();
  w.ascii("x");
  assert.equal(w.bytes, memory);
  assert.equal(w.length, 1);
});

test("ByteWriter allocates new memory only when its size doubles", () => {
  const w = new ByteWriter(16);
  const places = new Set<Uint8Array>();
  for (let i = 0; i < 1 << 16; i++) {
    w.u8(i);
    places.add(w.bytes);
  }
  assert.equal(places.size, 13);
});

test("ByteReader throws damaged with the wanted and the available bytes for a read past the end", () => {
  const r = new ByteReader(new Uint8Array(3), "the file");
  assert.throws(() => r.u32(), /the file: wanted 4 bytes at 0, found 3/);
  assert.throws(() => r.take(4), { code: "damaged" });
});

test("compareBytes orders bytes like Buffer.compare", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 4 }), fc.uint8Array({ maxLength: 4 }), (a, b) => {
      assert.equal(Math.sign(compareBytes(a, b)), Buffer.compare(a, b));
    }),
  );
});

test("joinPath puts a slash between two parts unless one is empty", () => {
  const name = Buffer.from("name");
  const joined = ["a/b", "", "a"].map((directory) => joinPath(Buffer.from(directory), name).toString());
  assert.deepEqual(joined, ["a/b/name", "name", "a/name"]);
  assert.equal(joinPath(Buffer.from("a"), new Uint8Array(0)).toString(), "a");
  const own = joinPath(new Uint8Array(0), name);
  name.fill(0);
  assert.equal(own.toString(), "name");
});
