import { strict as assert } from "node:assert";
import { randomBytes } from "node:crypto";
import { openSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { CairnError } from "../../errors.ts";
import { BlobIndex } from "../index/blob-index.ts";
import { BlobReader } from "../packs/blob-reader.ts";
import { compact } from "./compact.ts";
import { acquireLock } from "../locks.ts";
import {
  markedPack,
  randomFiles,
  resticCheck,
  sha,
  TestArchive,
  repositoryFor,
  withRepository,
  type Fixture,
} from "../testing-archive.ts";

async function assertSameAsFiles(fixture: Fixture, index: BlobIndex): Promise<void> {
  const fresh = await BlobIndex.load(fixture.repository, null);
  const sorted = (names: Iterable<string>): string[] => [...names].sort();
  assert.deepEqual(sorted(index.covered), sorted(fresh.covered));
  for (let entry = 0; entry < fresh.count; entry++) {
    const own = index.lookup(fresh.idOf(entry), 0, fresh.table.typeOf(entry));
    assert.deepEqual(index.place(own), fresh.place(entry));
    assert.equal(index.listings(fresh.place(entry).pack), fresh.listings(fresh.place(entry).pack));
  }
}

/** How much is merged is decided by what there is, not by how busy the machine is. */
const UNBOUNDED = Infinity;

describe("compaction", () => {
  test("compactions keep the number of files small over 150 saves, with every blob readable", async (t) => {
    const fixture = await repositoryFor(t);
    const { repository, storage } = fixture;
    const archive = new TestArchive(fixture);
    const cache = join(fixture.folder, "cache");
    const contents: Uint8Array[] = [];
    await archive.save({ first: randomBytes(500) });
    const { epoch } = await BlobIndex.load(repository, cache);
    let most = 0;
    let runs = 0;
    for (let i = 0; i < 150; i++) {
      const content = randomBytes(200 + i);
      contents.push(content);
      await archive.save({ file: content });
      const index = await BlobIndex.load(repository, cache);
      assert.equal(index.epoch, epoch);
      const result = await compact(repository, index, { trigger: 8, budgetMs: UNBOUNDED });
      if (result.mergedIndexes > 0) {
        runs++;
        await assertSameAsFiles(fixture, index);
      }
      most = Math.max(most, (await storage.list("data")).length);
    }
    const index = await BlobIndex.load(repository, cache);
    assert.equal(index.epoch, epoch);
    assert.ok(runs > 15, `${runs} runs`);
    assert.ok((await storage.list("index")).length < 24);
    assert.ok(most < 70, `${most} packs at most`);
    const reader = new BlobReader({
      keys: repository.keys,
      openPack: (name) => openSync(storage.localPath("data", name), "r"),
    });
    for (const content of contents) {
      const entry = index.lookup(sha(content), 0);
      assert.deepEqual(
        Buffer.from(reader.view({ ...index.place(entry), id: index.idOf(entry) })),
        Buffer.from(content),
      );
    }
    reader.close();
    resticCheck(fixture.path);
  });

  test("a compaction does nothing below the trigger, and is postponed while another program holds a lock", async (t) => {
    const fixture = await repositoryFor(t);
    const { repository, storage } = fixture;
    const archive = new TestArchive(fixture);
    for (let i = 0; i < 5; i++) await archive.save(randomFiles(2, 100, `n${i}`));
    const index = await BlobIndex.load(repository, null);
    assert.equal((await compact(repository, index)).mergedIndexes, 0);
    const lock = await acquireLock(repository, { exclusive: false });
    assert.equal((await compact(repository, index, { trigger: 5 })).postponed, true);
    await lock.release();
    const result = await compact(repository, index, { trigger: 5, budgetMs: UNBOUNDED });
    assert.equal(result.mergedIndexes, 5);
    assert.equal((await storage.list("index")).length, 1);
    assert.equal((await storage.list("data")).length, 2);
    await assertSameAsFiles(fixture, index);
    resticCheck(fixture.path);
  });

  test("a compaction removes an unindexed pack only if an indexed pack has the same content", async (t) => {
    const fixture = await repositoryFor(t);
    const { repository, storage } = fixture;
    const again = randomFiles(2, 100, "again");
    const names = async (): Promise<string[]> => (await storage.list("data")).map(({ name }) => name).sort();
    const unindexed = async (files: Record<string, Uint8Array>): Promise<string[]> => {
      const before = new Set(await names());
      const indexes = new Set((await storage.list("index")).map(({ name }) => name));
      await new TestArchive(fixture).save(files);
      for (const { name } of await storage.list("index")) if (!indexes.has(name)) await storage.remove("index", name);
      return (await names()).filter((name) => !before.has(name));
    };
    const killed = await unindexed(again);
    const archive = new TestArchive(fixture);
    await archive.save(again);
    for (let i = 0; i < 5; i++) await archive.save(randomFiles(2, 100, `n${i}`));
    const marked = await markedPack(repository);
    const lost = await unindexed(randomFiles(2, 100, "lost"));
    const unreadable = "cd".repeat(32);
    await storage.save("data", unreadable, Buffer.alloc(50));
    const index = await BlobIndex.load(repository, null);
    const result = await compact(repository, index, { trigger: 5, budgetMs: UNBOUNDED });
    assert.deepEqual([result.mergedIndexes, result.removedUnindexed], [5, killed.length]);
    const left = new Set(await names());
    for (const name of killed) assert.equal(left.has(name), false);
    for (const name of [marked, ...lost, unreadable]) assert.equal(left.has(name), true);
  });

  test("a compaction skips index files and unindexed packs that it cannot read", async () => {
    const cause = Object.assign(new Error(), { code: "EIO" });
    const sector = new CairnError("io", "bad sector", { cause });
    const closed = new CairnError("permission", "this user may not read it");
    for (const [unreadable, error] of [
      ["index", sector],
      ["data", sector],
      ["data", closed],
    ] as const)
      await withRepository(async (fixture) => {
        const { repository, storage } = fixture;
        const archive = new TestArchive(fixture);
        for (let i = 0; i < 6; i++) await archive.save(randomFiles(2, 100, `n${i}`));
        if (unreadable === "data") await storage.save("data", "ab".repeat(32), Buffer.alloc(50));
        const index = await BlobIndex.load(repository, null);
        const worn = unreadable === "data" ? "ab".repeat(32) : (await storage.list("index"))[0]!.name;
        const load = storage.load.bind(storage);
        storage.load = async (...of) => {
          if (of[1] === worn) throw error;
          return load(...of);
        };
        const result = await compact(repository, index, { trigger: 5, budgetMs: UNBOUNDED });
        assert.deepEqual([result.mergedIndexes, result.removedUnindexed], [unreadable === "data" ? 6 : 5, 0]);
        storage.load = load;
        assert.equal(
          (await storage.list(unreadable)).some(({ name }) => name === worn),
          true,
        );
        await assertSameAsFiles(fixture, index);
      });
  });

  test("a compaction without time left merges two index files and no pack", async (t) => {
    const fixture = await repositoryFor(t);
    const { repository, storage } = fixture;
    const archive = new TestArchive(fixture);
    for (let i = 0; i < 5; i++) await archive.save(randomFiles(2, 100, `n${i}`));
    const index = await BlobIndex.load(repository, null);
    const packs = await storage.list("data");
    const short = await compact(repository, index, { trigger: 5, budgetMs: 0 });
    assert.deepEqual([short.mergedIndexes, short.mergedPacks], [2, 0]);
    assert.deepEqual([(await storage.list("index")).length, await storage.list("data")], [4, packs]);
    const rest = await compact(repository, index, { trigger: 4, budgetMs: UNBOUNDED });
    assert.deepEqual([rest.mergedIndexes, rest.mergedPacks], [4, packs.length]);
    await assertSameAsFiles(fixture, index);
  });

  test("an aborted compaction throws interrupted before any change", async (t) => {
    const fixture = await repositoryFor(t);
    const { repository, storage } = fixture;
    const archive = new TestArchive(fixture);
    for (let i = 0; i < 5; i++) await archive.save(randomFiles(2, 100, `n${i}`));
    const index = await BlobIndex.load(repository, null);
    const before = await storage.list("index");
    const signal = AbortSignal.abort();
    const interrupted = { code: "interrupted" };
    await assert.rejects(compact(repository, index, { trigger: 5, signal }), interrupted);
    await assert.rejects(BlobIndex.load(repository, null, signal), interrupted);
    assert.deepEqual([await storage.list("index"), await storage.list("locks")], [before, []]);
  });

  test("a compaction keeps the entries of a pack that two index files list", async (t) => {
    const fixture = await repositoryFor(t);
    const { repository, storage } = fixture;
    const archive = new TestArchive(fixture);
    for (let i = 0; i < 6; i++) await archive.save(randomFiles(2, 100, `n${i}`));
    // What a compaction leaves that was killed before it removed anything.
    const kept = await BlobIndex.load(repository, null);
    const twice = kept.place(0).pack;
    const { loadIndexFile, IndexFileWriter } = await import("../index/index-set.ts");
    const writer = new IndexFileWriter(repository);
    for (const { name } of await storage.list("index")) {
      for (const pack of (await loadIndexFile(repository, name)).packs) {
        if (Buffer.compare(pack.id, twice) === 0 || pack.blobs[0]!.type === "tree")
          await writer.add(pack.id, pack.blobs);
      }
    }
    await writer.finish();
    const index = await BlobIndex.load(repository, null);
    assert.equal(index.listings(twice), 2);
    await compact(repository, index, { trigger: 3, budgetMs: UNBOUNDED });
    await assertSameAsFiles(fixture, index);
    resticCheck(fixture.path);
  });
});
