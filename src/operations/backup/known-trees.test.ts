import assert from "node:assert/strict";
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { BlobIndex } from "../../repository/blob-index.ts";
import { randomFiles, TestArchive, withRepository } from "../../repository/test-archive.ts";
import { keepKnownTrees, readKnownTrees } from "./known-trees.ts";

test("trees are known only together with an index that was cached", async () => {
  await withRepository(async (fixture) => {
    const { folder, repository } = fixture;
    const caches = join(folder, "caches");
    mkdirSync(caches);
    const tree = "ab".repeat(32);
    await new TestArchive(fixture).save(randomFiles(1, 100));
    const gone = join(folder, "gone");
    mkdirSync(gone);
    const uncached = await BlobIndex.load(repository, join(gone, "index"));
    await new TestArchive(fixture).save(randomFiles(1, 100, "g"));
    rmSync(gone, { recursive: true });
    await uncached.refresh(repository);
    keepKnownTrees(caches, uncached, [tree]);
    assert.deepEqual([...readKnownTrees(caches, uncached.epoch)], []);
    const cached = await BlobIndex.load(repository, join(caches, "index"));
    keepKnownTrees(caches, cached, [tree]);
    assert.deepEqual([...readKnownTrees(caches, cached.epoch)], [tree]);
    assert.deepEqual([...readKnownTrees(caches, "another")], []);
  });
});
