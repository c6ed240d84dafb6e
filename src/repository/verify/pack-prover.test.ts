import assert from "node:assert/strict";
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { objectIdOf } from "../../ids.ts";
import { giveBackThreads, takeThreads } from "../../threads/threads.ts";
import { BlobIndex } from "../index/blob-index.ts";
import { NearPacks } from "../read/near-packs.ts";
import { LocalStorage } from "../storage/local.ts";
import { addBlob, noiseBlob, testPacks } from "../testing-packs.ts";
import { provePacks } from "./pack-prover.ts";
import { VERIFY } from "./verify-task.ts";

const PACKS = 12;
const BLOBS = 4;

test("provePacks finds all damage if another thread joins, and gives all threads back", async () => {
  using made = testPacks();
  const storage = new LocalStorage(made.directory, { temporaryDirectory: made.directory });
  const writer = made.writer();
  for (let n = 0; n < PACKS * BLOBS; n++) {
    addBlob(writer, noiseBlob(n, 1 << 20));
    if (n % BLOBS === BLOBS - 1) writer.finish();
  }
  const index = new BlobIndex();
  for (const [n, { id, header, path }] of made.packs.entries()) {
    const place = storage.localPath("data", objectIdOf(id));
    mkdirSync(dirname(place), { recursive: true });
    renameSync(path, place);
    index.addPackHeader(id, header);
    if (n % 5 !== 1) continue;
    const bytes = readFileSync(place);
    bytes[1000]! ^= 1;
    writeFileSync(place, bytes);
  }
  const packs = made.packs.map(({ id, size }) => ({ name: objectIdOf(id), size }));
  for (const walked of [undefined, Promise.resolve(), Promise.withResolvers<void>().promise]) {
    const near = new NearPacks(storage, join(made.directory, "near"));
    const found = await provePacks({ keys: made.keys, index, near, packs, walked });
    const damaged = found.reports.map(({ pack }) => pack).toSorted((a, b) => a - b);
    assert.deepEqual(damaged, [1, 6, 11]);
    assert.equal(found.packs, PACKS);
    assert.equal(found.proven.filter((each) => each === 1).length, PACKS * BLOBS - damaged.length);
  }
  const all = await takeThreads({ kind: VERIFY, count: 4 });
  assert.equal(all.length, 4);
  assert.ok(all.every(({ usable }) => usable));
  giveBackThreads(all);
});
