import { strict as assert } from "node:assert";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { decodeIndexColumns, IndexColumns } from "../../formats/restic/index-file.ts";
import { IndexedPack, IndexFileWriter, listingKey, loadIndexFile } from "./index-set.ts";
import { repositoryFor } from "../testing-archive.ts";

function idOf(n: number): string {
  return createHash("sha256").update(String(n)).digest("hex");
}

function listed(...places: [offset: number, length: number][]): IndexedPack {
  const blobs = places.map(([offset, length]) => ({ id: idOf(offset), type: "data", offset, length }));
  const columns = new IndexColumns();
  decodeIndexColumns(Buffer.from(JSON.stringify({ packs: [{ id: idOf(-1), blobs }] })), columns);
  return new IndexedPack(columns, columns.packs[0]!);
}

test("IndexedPack.isContiguous is true if blobs without gaps are listed in any order", () => {
  const pack = listed([100, 60], [0, 100], [160, 40]);
  assert.equal(pack.isContiguous, true);
  assert.deepEqual(
    pack.blobs.map(({ offset }) => offset),
    [0, 100, 160],
  );
  assert.equal(pack.fileSize, 200 + 3 * 37 + 36);
  assert.equal(pack.blobCount, 3);
});

test("IndexedPack.isContiguous is false if the listed blobs have a gap or overlap", () => {
  assert.equal(listed([0, 100], [101, 60]).isContiguous, false);
  assert.equal(listed([0, 100], [99, 60]).isContiguous, false);
  assert.equal(listed([1, 100]).isContiguous, false);
  assert.equal(listed().isContiguous, true);
});

test("IndexFileWriter keeps different listings of a pack, and writes equal listings once", async (t) => {
  const { repository } = await repositoryFor(t);
  const parts = [listed([0, 100], [100, 60]), listed([160, 40], [300, 50]), listed([100, 60], [0, 100])];
  const writer = new IndexFileWriter(repository);
  for (const { id, blobs } of parts) await writer.add(id, blobs);
  const [name, ...more] = await writer.finish();
  assert.deepEqual(more, []);
  const { packs } = await loadIndexFile(repository, name!);
  assert.deepEqual(
    packs.map(({ blobs }) => blobs.map(({ offset, length }) => [offset, length])),
    [
      [
        [0, 100],
        [100, 60],
      ],
      [
        [160, 40],
        [300, 50],
      ],
    ],
  );
});

test("listingKey depends on every member of every blob, but not on the order", () => {
  const { blobs } = listed([0, 100], [100, 60]);
  const key = listingKey(blobs);
  assert.equal(listingKey(blobs.toReversed()), key);
  const keys = new Set([key, listingKey([]), listingKey(blobs.slice(1)), listingKey([blobs[0]!, ...blobs])]);
  const [first, second] = [blobs[0]!, blobs[1]!];
  const others = [
    { offset: 1 },
    { length: 101 },
    { uncompressedLength: 100 },
    { type: "tree" as const },
    { id: second.id },
    { offset: 100, length: 0 },
  ];
  for (const other of others) keys.add(listingKey([{ ...first, ...other }, second]));
  assert.equal(keys.size, 4 + others.length);
});
