import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { BlobIndex } from "../repository/index/blob-index.ts";
import { randomFiles, TestArchive, withRepository } from "../repository/testing-archive.ts";
import { keepKnownTrees, readKnownTrees } from "./open/made-snapshot.ts";

test("readKnownTrees returns no trees if an index file is gone that existed when they were kept", async () => {
  await withRepository(async (fixture) => {
    const { folder, repository, storage } = fixture;
    const caches = join(folder, "caches");
    mkdirSync(caches);
    const read = async (): Promise<BlobIndex> => BlobIndex.load(repository, join(caches, "index"));
    const [first, second] = ["ab".repeat(32), "cd".repeat(32)];
    await new TestArchive(fixture).save(randomFiles(1, 100));
    const before = await read();
    const names = before.covered.size;
    // By another process, which has begun later and ends earlier.
    await new TestArchive(fixture).save(randomFiles(1, 100, "g"));
    const since = await read();
    keepKnownTrees(caches, since, [first]);
    assert.deepEqual([...readKnownTrees(caches, since)], [first]);
    assert.equal(before.epoch, since.epoch);
    assert.equal(before.covered.size, names);
    assert.deepEqual([...readKnownTrees(caches, before)], []);
    keepKnownTrees(caches, before, [second]);
    assert.deepEqual([...readKnownTrees(caches, await read())], [second], "more index files than those");
    const [own] = [...before.covered];
    await storage.remove("index", own!);
    assert.deepEqual([...readKnownTrees(caches, await read())], []);
  });
});
