import { sourceOf } from "../../archive/databases/point-view.ts";
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { sha256 } from "../../crypto/hash.ts";
import { temporaryFolder, TestStore } from "./testing-store.ts";

const HOLE = 40 << 20;

test("reading a sparse file loads the zero blob of its hole only once", async (t) => {
  const store = await TestStore.create(t);
  const root = temporaryFolder(t);
  const file = fs.openSync(path.join(root, "sparse"), "w");
  fs.writeSync(file, randomBytes(3000), 0, 3000, HOLE);
  fs.ftruncateSync(file, 2 * HOLE);
  fs.closeSync(file);
  const whole = fs.readFileSync(path.join(root, "sparse"));
  const saved = await store.save(root);
  const { index, blobs } = store.store;
  const source = sourceOf(store.store, saved.tree, { index, blobs, derived: null, placed: null, lost: [] });
  const reading = t.mock.method(store.store, "read");
  const node = source.list(saved.tree).at(0)!;
  reading.mock.resetCalls();
  let pieces = 0;
  const parts = Array.from(source.content(node), (piece) => {
    pieces++;
    return Buffer.from(piece);
  });
  assert.deepEqual(sha256(Buffer.concat(parts)), sha256(whole));
  assert.equal(pieces, node.content!.length / 32);
  assert.ok(
    reading.mock.callCount() <= 7 && reading.mock.callCount() < pieces,
    `${reading.mock.callCount()} of ${pieces}`,
  );
  const target = temporaryFolder(t);
  await store.write(saved, target);
  assert.deepEqual(sha256(fs.readFileSync(path.join(target, "sparse"))), sha256(whole));
  assert.ok(fs.statSync(path.join(target, "sparse")).blocks * 512 < HOLE);
});
