import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import fc from "fast-check";
import type { ObjectId } from "../../ids.ts";
import { ByteWriter } from "../bytes.ts";
import { everyCutIsDamage, everyFlipIsDamageOrDecodes } from "../hostile.contract.ts";
import { decodeIndex, IndexWriter, type IndexBlob } from "./index-file.ts";
import { decodePackHeader, encodeHeaderEntry, type PackHeaderEntry } from "./pack-header.ts";

const golden = readFileSync(new URL("../../../test/vectors/restic/index.json", import.meta.url));

interface Pack {
  id: string;
  blobs: { id: string; type: string; offset: number; length: number; uncompressedLength: number }[];
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

function read(bytes: Uint8Array): Pack[] {
  const packs: Pack[] = [];
  decodeIndex(bytes, (id, blobs) => packs.push({ id: hex(id), blobs: blobs.map((b) => ({ ...b, id: hex(b.id) })) }));
  return packs;
}

function idOf(n: number): Uint8Array {
  return createHash("sha256").update(String(n)).digest();
}

const anyEntry: fc.Arbitrary<PackHeaderEntry> = fc.record({
  id: fc.uint8Array({ minLength: 32, maxLength: 32 }),
  type: fc.constantFrom("data" as const, "tree" as const),
  length: fc.integer({ min: 32, max: 0x1000000 }),
  uncompressedLength: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 0xffffffff })),
});

function header(entries: readonly PackHeaderEntry[]): Uint8Array {
  const w = new ByteWriter(16);
  for (const entry of entries) encodeHeaderEntry(w, entry);
  return w.copy();
}

test("decodeIndex reads restic's index like JSON.parse, and IndexWriter writes the same members again", () => {
  const parsed = JSON.parse(golden.toString()) as {
    packs: { id: string; blobs: (Omit<IndexBlob, "id"> & { id: string; uncompressed_length?: number })[] }[];
  };
  const packs = read(golden);
  assert.deepEqual(
    packs,
    parsed.packs.map(({ id, blobs }) => ({
      id,
      blobs: blobs.map(({ uncompressed_length, ...blob }) => ({
        ...blob,
        uncompressedLength: uncompressed_length ?? 0,
      })),
    })),
  );
  const writer = new IndexWriter();
  const inOrder = (a: { offset: number }, b: { offset: number }): number => a.offset - b.offset;
  decodeIndex(golden, (id, blobs) => writer.addPack(id, blobs.toSorted(inOrder)));
  for (const pack of parsed.packs) pack.blobs.sort(inOrder);
  assert.equal(Buffer.from(writer.finish()).toString(), JSON.stringify(parsed));
});

test("decodeIndex returns the packs that were added as entries or as header bytes", () => {
  fc.assert(
    fc.property(fc.array(fc.array(anyEntry, { maxLength: 5 }), { maxLength: 4 }), (packs) => {
      const one = new IndexWriter();
      const other = new IndexWriter();
      packs.forEach((entries, i) => {
        one.addPack(idOf(i), entries);
        other.addPack(idOf(i), header(entries));
      });
      const bytes = one.finish();
      assert.deepEqual(Buffer.from(bytes), Buffer.from(other.finish()));
      assert.equal(one.byteLength, bytes.length);
      assert.equal(one.blobCount, packs.flat().length);
      const wanted = packs.map((entries, i) => ({
        id: hex(idOf(i)),
        blobs: decodePackHeader(header(entries)).map((blob) => ({ ...blob, id: hex(blob.id) })),
      }));
      assert.deepEqual(read(bytes), wanted);
      // The general decoder reads the same.
      assert.deepEqual(read(Buffer.concat([Buffer.from(" "), bytes])), wanted);
    }),
  );
});

test("decodePackHeader computes consecutive offsets, and refuses impossible values", () => {
  const id = idOf(1);
  const plain = header([
    { id, type: "data", length: 100, uncompressedLength: 0 },
    { id, type: "tree", length: 50, uncompressedLength: 7 },
  ]);
  assert.equal(plain.length, 37 + 41);
  const blobs = decodePackHeader(plain).map(({ id: _id, ...rest }) => rest);
  assert.deepEqual(blobs, [
    { type: "data", offset: 0, length: 100, uncompressedLength: 0 },
    { type: "tree", offset: 100, length: 50, uncompressedLength: 7 },
  ]);
  for (const [at, value] of [
    [0, 4],
    [0, 255],
    [1, 31],
    [1, 0],
  ] as const) {
    const changed = Uint8Array.from(plain);
    changed[at] = value;
    if (at === 1) changed.fill(0, 2, 5);
    assert.throws(() => decodePackHeader(changed), { code: "damaged" }, `${at} = ${value}`);
  }
  for (let n = 1; n < plain.length; n++) {
    if (n !== 37) assert.throws(() => decodePackHeader(plain.subarray(0, n)), { code: "damaged" }, String(n));
  }
  assert.deepEqual(decodePackHeader(new Uint8Array(0)), []);
});

test("decodeIndex keeps supersedes and unknown members of other programs", () => {
  const writer = new IndexWriter();
  writer.addPack(idOf(1), [{ id: idOf(2), type: "tree", length: 40, uncompressedLength: 0 }]);
  const old = hex(idOf(3)) as ObjectId;
  const extra = { packs_to_delete: [{ id: "x", time: "<now>" }] };
  const bytes = writer.finish([old], extra);
  const decoded = decodeIndex(bytes, () => {});
  assert.deepEqual(decoded, { supersedes: [old], extra });
  const plain = decodeIndex(writer.finish([old]), () => {});
  assert.deepEqual(plain, { supersedes: [old], extra: {} });
});

test("decodeIndex reads restic's oldest index format, a bare list of packs", () => {
  const text = JSON.stringify([
    { id: hex(idOf(1)), blobs: [{ id: hex(idOf(2)), type: "data", offset: 0, length: 99 }] },
  ]);
  assert.equal(read(Buffer.from(text))[0]!.blobs[0]!.length, 99);
  assert.deepEqual(read(Buffer.from('{"packs":null}')), []);
  assert.deepEqual(read(Buffer.from("{}")), []);
});

test("decodeIndex returns no pack from an index file with an invalid length", () => {
  const writer = new IndexWriter();
  for (let i = 0; i < 3; i++)
    writer.addPack(idOf(i), [{ id: idOf(9 + i), type: "data", length: 77, uncompressedLength: 5 }]);
  const text = Buffer.from(writer.finish()).toString();
  const at = text.lastIndexOf('"length":77');
  for (const value of ["-1", "31", "4294967296", "1.5", "007", '"77"', "null", "99999999999999999999"]) {
    const changed = text.slice(0, at) + `"length":${value}` + text.slice(at + 11);
    let packs = 0;
    assert.throws(() => decodeIndex(Buffer.from(changed), () => packs++), { code: "damaged" }, value);
    assert.equal(packs, 0);
  }
});

test("decodeIndex throws no error other than damaged or newer_version for changed bytes", () => {
  const writer = new IndexWriter();
  writer.addPack(idOf(1), [
    { id: idOf(2), type: "data", length: 77, uncompressedLength: 5 },
    { id: idOf(3), type: "data", length: 78, uncompressedLength: 0 },
  ]);
  const decode = (bytes: Uint8Array) => decodeIndex(bytes, () => {});
  const bytes = writer.finish([hex(idOf(4)) as ObjectId]);
  everyCutIsDamage(decode, bytes);
  everyFlipIsDamageOrDecodes(decode, bytes);
  for (const text of [
    "",
    "null",
    "1",
    "{",
    "[1]",
    '{"packs":1}',
    '{"packs":[{}]}',
    '{"supersedes":["x"]}',
    '{"supersedes":[1]}',
  ]) {
    assert.throws(() => decode(Buffer.from(text)), { code: "damaged" }, text);
  }
});
