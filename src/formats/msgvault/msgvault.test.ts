import assert from "node:assert/strict";
import { hash } from "node:crypto";
import { test } from "node:test";
import { everyCutIsDamage, everyFlipIsDamageOrDecodes, nonsenseIsDamage } from "../hostile.contract.ts";
import { checkConfig, decodeExtras, decodeManifest } from "./manifest.ts";
import {
  crc32c,
  decodeAttachments,
  decodeHashes,
  decodeIndex,
  decodePack,
  decodePageMap,
  type PageMap,
  runsOf,
} from "./objects.ts";

const sha256 = (bytes: Uint8Array): Uint8Array => hash("sha256", bytes, "buffer");
const u32 = (value: number): Buffer => Buffer.from(Uint32Array.of(value).buffer);
const u64 = (value: number): Buffer => Buffer.from(BigUint64Array.of(BigInt(value)).buffer);
const object = (magic: string, ...parts: Uint8Array[]): Buffer => {
  const body = Buffer.concat([Buffer.from(magic), Buffer.of(1, 0), ...parts]);
  return Buffer.concat([body, sha256(body)]);
};
/** Accepts every trailer, so that wrong bytes reach the fields. */
const anyHash =
  (bytes: Uint8Array): ((body: Uint8Array) => Uint8Array) =>
  () =>
    bytes.subarray(bytes.length - 32);

const BLOB = [1, 2, 3].map((byte) => Buffer.alloc(32, byte));
const runs = (...each: [start: number, count: number, blob: number, offset: number][]): Buffer =>
  Buffer.concat([
    u32(each.length),
    ...each.map(([start, count, blob, offset]) => Buffer.concat([u64(start), u32(count), u32(blob), u64(offset)])),
  ]);
const map = (magic: string, pages: number, ...each: Parameters<typeof runs>): Buffer =>
  object(magic, u32(512), u64(pages), u32(3), ...BLOB, runs(...each));

const OBJECTS: Readonly<Record<string, [bytes: Buffer, decode: (bytes: Uint8Array, sha: typeof sha256) => unknown]>> = {
  index: [
    object(
      "MVIX",
      u32(2),
      BLOB[0]!,
      Buffer.alloc(16, 7),
      u64(6),
      u64(9),
      Buffer.of(1),
      BLOB[1]!,
      Buffer.alloc(16, 8),
      u64(6),
      u64(9),
      Buffer.of(0),
    ),
    (bytes, sha) => decodeIndex(bytes, sha, () => undefined),
  ],
  map: [map("MVMK", 9, [0, 4, 0, 0], [4, 5, 2, 100]), (bytes, sha) => decodePageMap(bytes, sha, null)],
  hashes: [object("MVHK", u32(512), u64(2), Buffer.alloc(32, 9)), (bytes, sha) => decodeHashes(bytes, sha, null)],
  delta: [
    object("MVHD", u32(512), u64(3), u32(1), u64(2), Buffer.alloc(16, 3)),
    (bytes, sha) => decodeHashes(bytes, sha, { pageSize: 512, hashes: new Uint8Array(32) }),
  ],
  list: [object("MVAL", u32(1), BLOB[0]!, u64(77)), decodeAttachments],
};

test("an object that is cut is damaged, and a changed byte is damaged or decodes", () => {
  for (const [bytes, decode] of Object.values(OBJECTS)) {
    decode(bytes, sha256);
    everyCutIsDamage((each) => decode(each, sha256), bytes);
    everyCutIsDamage((each) => decode(each, each.length < 32 ? sha256 : anyHash(each)), bytes, { optionalTail: 0 });
    everyFlipIsDamageOrDecodes((each) => decode(each, anyHash(each)), bytes);
    for (const at of [0, 5, bytes.length - 1]) {
      const changed = Buffer.from(bytes);
      changed[at]! ^= 1;
      assert.throws(() => decode(changed, sha256), { code: "damaged" });
    }
  }
});

test("a delta of a page map replaces parts of runs, grows and shrinks the database", () => {
  const base = decodePageMap(map("MVMK", 10, [0, 4, 0, 0], [4, 6, 1, 64]), sha256, null);
  const rangesOf = (pages: PageMap): number[][] =>
    runsOf(pages).map(({ start, count, blob, offset }) => [
      start,
      count,
      Number.parseInt(blob.slice(0, 2), 16),
      offset,
    ]);
  const applied = (pages: number, ...each: Parameters<typeof runs>): number[][] => {
    return rangesOf(decodePageMap(map("MVMD", pages, ...each), sha256, base));
  };
  assert.deepEqual(applied(10), rangesOf(base));
  assert.deepEqual(applied(10, [3, 2, 2, 9]), [
    [0, 3, 1, 0],
    [3, 2, 3, 9],
    [5, 5, 2, 64 + 512],
  ]);
  assert.deepEqual(applied(12, [0, 1, 2, 0], [5, 1, 2, 512], [10, 2, 2, 1024]), [
    [0, 1, 3, 0],
    [1, 3, 1, 512],
    [4, 1, 2, 64],
    [5, 1, 3, 512],
    [6, 4, 2, 64 + 1024],
    [10, 2, 3, 1024],
  ]);
  assert.deepEqual(applied(6, [0, 1, 2, 0]), [
    [0, 1, 3, 0],
    [1, 3, 1, 512],
    [4, 2, 2, 64],
  ]);
  assert.deepEqual(applied(10, [0, 10, 2, 0]), [[0, 10, 3, 0]]);
  // Every page, whichever deltas cover it, compared with a plain array.
  let seed = 1;
  const random = (below: number): number => (seed = (seed * 48271) % 2147483647) % below;
  for (let round = 0; round < 300; round++) {
    const pages = 8 + random(8);
    const each: [number, number, number, number][] = [];
    for (let at = 10; at < pages; at++) each.push([at, 1, 2, at]);
    for (let at = random(3); at < Math.min(pages, 10); at += 1 + random(4)) {
      const count = Math.min(1 + random(4), Math.min(pages, 10) - at);
      each.push([at, count, 2, at * 1000]);
      at += count;
    }
    const wanted = new Map<number, string>();
    const note = (all: readonly number[][], size: number): void => {
      for (const [start, count, blob, offset] of all)
        for (let i = 0; i < count!; i++)
          if (start! + i < pages) wanted.set(start! + i, `${blob} ${offset! + i * size}`);
    };
    note(rangesOf(base), 512);
    note(
      each.map(([start, count, blob, offset]) => [start, count, blob + 1, offset]),
      512,
    );
    const result = rangesOf(decodePageMap(map("MVMD", pages, ...each.toSorted((a, b) => a[0] - b[0])), sha256, base));
    let next = 0;
    for (const [start, count, blob, offset] of result) {
      assert.equal(start, next);
      for (let i = 0; i < count!; i++) assert.equal(`${blob} ${offset! + i * 512}`, wanted.get(next++));
    }
    assert.equal(next, pages);
  }
});

test("a manifest and a config that are no records are damaged", () => {
  nonsenseIsDamage((bytes) => decodeManifest(bytes, `20260101T000000Z-${"0".repeat(32)}`, sha256));
  nonsenseIsDamage(decodeExtras);
  for (const members of [null, [], {}, { min_reader_version: "1" }])
    assert.throws(() => checkConfig(members), { code: "damaged" });
});

test("a pack that is cut is damaged, and a changed byte of its footer too", () => {
  const frame = Buffer.from("content");
  const entry = Buffer.concat([BLOB[0]!, u64(6), u64(7), u64(7), Buffer.of(0), u32(crc32c(frame))]);
  const footer = Buffer.concat([u32(1), entry, u32(entry.length + 4)]);
  const pack = Buffer.concat([Buffer.from("MVPK\u0001\u0000"), frame, footer, sha256(footer), Buffer.from("KPVM")]);
  const decode = (bytes: Uint8Array): unknown =>
    decodePack("pack", { size: bytes.length, read: (at, length) => bytes.subarray(at, at + length), sha256 });
  assert.equal((decode(pack) as Map<string, unknown>).size, 1);
  everyCutIsDamage(decode, pack);
  for (let at = 13; at < pack.length; at++) {
    const changed = Buffer.from(pack);
    changed[at]! ^= 4;
    assert.throws(() => decode(changed), { code: "damaged" }, String(at));
  }
});

test("CRC-32C has the value of its standard", () => {
  assert.equal(crc32c(Buffer.from("123456789")), 0xe3069283);
  assert.equal(crc32c(Buffer.from("6789"), crc32c(Buffer.from("12345"))), 0xe3069283);
});
