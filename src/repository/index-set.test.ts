import { strict as assert } from "node:assert";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { decodeIndexColumns, IndexColumns } from "../formats/index-file.ts";
import { IndexedPack } from "./index-set.ts";

function idOf(n: number): string {
  return createHash("sha256").update(String(n)).digest("hex");
}

function listed(...places: [offset: number, length: number][]): IndexedPack {
  const blobs = places.map(([offset, length], n) => ({ id: idOf(n), type: "data", offset, length }));
  const columns = new IndexColumns();
  decodeIndexColumns(Buffer.from(JSON.stringify({ packs: [{ id: idOf(-1), blobs }] })), columns);
  return new IndexedPack(columns, columns.packs[0]!);
}

test("a listed pack is contiguous when its blobs are listed in another order than they lie in", () => {
  const pack = listed([100, 60], [0, 100], [160, 40]);
  assert.equal(pack.isContiguous, true);
  assert.deepEqual(
    pack.blobs.map(({ offset }) => offset),
    [0, 100, 160],
  );
  assert.equal(pack.fileSize, 200 + 3 * 37 + 36);
  assert.equal(pack.blobCount, 3);
});

test("a listed pack is not contiguous when there is a gap, or two blobs overlap", () => {
  assert.equal(listed([0, 100], [101, 60]).isContiguous, false);
  assert.equal(listed([0, 100], [99, 60]).isContiguous, false);
  assert.equal(listed([1, 100]).isContiguous, false);
  assert.equal(listed().isContiguous, true);
});
