import assert from "node:assert/strict";
import { test } from "node:test";
import { BlobIndex } from "../index/blob-index.ts";
import {
  randomFiles,
  assertComplete,
  TestArchive,
  repositoryFor,
  withRepository,
  type Fixture,
} from "../testing-archive.ts";
import type { FileKind } from "../storage/storage.ts";
import { runSweep, type SweepOptions } from "./remove.ts";

const OPTIONS: SweepOptions = { cachePath: null, roots: async () => [] };

/** A repository with a snapshot that stays, and packs of another one that is gone. Returns the snapshot that is gone. */
async function withDeadPacks(
  run: (fixture: Fixture, gone: { tree: string; time: string }) => Promise<void>,
): Promise<void> {
  await withRepository(async (fixture) => {
    const { repository, storage } = fixture;
    await new TestArchive(fixture).save(randomFiles(2, 300, "stays"));
    const { snapshot } = await new TestArchive(fixture).save(randomFiles(2, 300, "goes"));
    const gone = await repository.loadSnapshot(snapshot);
    await storage.remove("snapshots", snapshot);
    await run(fixture, gone);
  });
}

/** Calls `act` once, when the sweep has placed its second lock, the exclusive one. */
function atSecondLock({ storage }: Fixture, act: () => Promise<unknown>): void {
  const save = storage.save.bind(storage);
  let locks = 0;
  storage.save = async (kind, ...rest) => {
    await save(kind, ...rest);
    if (kind === "locks" && ++locks === 2) await act();
  };
}

test("a sweep removes the index files that name a pack before the pack", async () => {
  await withDeadPacks(async (fixture) => {
    const { repository, storage } = fixture;
    const removed: FileKind[] = [];
    const remove = storage.remove.bind(storage);
    storage.remove = async (kind, name) => {
      if (kind !== "locks") removed.push(kind);
      await remove(kind, name);
    };
    const { removedPacks } = await runSweep(repository, OPTIONS);
    assert.ok(removedPacks > 0);
    assert.ok(removed.lastIndexOf("index") < removed.indexOf("data"), removed.join(" "));
  });
});

test("a sweep keeps the content of a snapshot that was saved after the sweep had made its plan", async () => {
  await withDeadPacks(async (fixture, gone) => {
    const { repository } = fixture;
    atSecondLock(fixture, async () => repository.saveSnapshot(gone as never));
    await runSweep(repository, OPTIONS);
    assert.equal((await repository.listSnapshots()).snapshots.length, 2);
    await assertComplete(repository, null);
  });
});

test("a sweep plans again if a backup wrote an index file after the plan", async () => {
  await withDeadPacks(async (fixture) => {
    const { repository } = fixture;
    atSecondLock(fixture, async () => new TestArchive(fixture).save(randomFiles(2, 300, "new")));
    const { removedPacks, postponed } = await runSweep(repository, OPTIONS);
    assert.deepEqual([removedPacks > 0, postponed], [true, false]);
    await assertComplete(repository, null);
  });
});

test("a sweep counts as freed by how much the packs became smaller", async (t) => {
  const fixture = await repositoryFor(t);
  const { repository, storage } = fixture;
  const size = async (): Promise<number> => (await storage.list("data")).reduce((sum, file) => sum + file.size, 0);
  const archive = new TestArchive(fixture);
  const stays = randomFiles(1, 3000, "stays");
  const { snapshot } = await archive.save({ ...stays, ...randomFiles(8, 3000, "goes") });
  await archive.save(stays);
  await storage.remove("snapshots", snapshot);
  const before = await size();
  const { bytesFreed, repackedPacks } = await runSweep(repository, { ...OPTIONS, maxWaste: 0 });
  assert.ok(repackedPacks > 0);
  assert.equal(bytesFreed, before - (await size()));
  assert.ok((await BlobIndex.load(repository, null)).count > 0);
});
