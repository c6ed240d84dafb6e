import { strict as assert } from "node:assert";
import { join } from "node:path";
import { test } from "node:test";
import { previewSweep, removeSnapshots, runSweep, type SweepOptions } from "./remove.ts";
import { randomFiles, resticCheck, TestArchive, repositoryFor, type Fixture } from "../testing-archive.ts";

/** Sweeps with little room for copies. */

function optionsOf(fixture: Fixture, more: Partial<SweepOptions> = {}): SweepOptions {
  const cachePath = join(fixture.folder, "cache");
  return { cachePath, roots: async () => [], ...more };
}

test("a sweep removes unused packs first, then rewrites as many packs as it has room for copies", async (t) => {
  const fixture = await repositoryFor(t);
  const { repository, storage } = fixture;
  const archive = new TestArchive(fixture);
  const keep = [randomFiles(4, 3000, "k"), randomFiles(8, 3000, "l")];
  const gone = [];
  for (const [n, files] of keep.entries()) {
    gone.push((await archive.save({ ...files, ...randomFiles(2, 1000, `a${n}`) })).snapshot);
    await archive.save(files);
  }
  gone.push((await archive.save(randomFiles(2, 1000, "gone"))).snapshot);
  await removeSnapshots(repository, gone);
  const sweep = async (room: number) =>
    runSweep(repository, optionsOf(fixture, { maxWaste: 0, roomForCopies: () => room }));
  const first = await sweep(20_000);
  assert.deepEqual([first.removedPacks > 0, first.repackedPacks, first.newPacks], [true, 0, 0]);
  assert.ok(first.crowded!.unusedBytes >= 4000 && first.crowded!.unusedBytes === first.unusedBytes);
  const second = await sweep(20_000);
  assert.equal(second.repackedPacks, 1);
  assert.ok(second.crowded!.copyBytes > 24_000 && second.crowded!.copyBytes < 28_000);
  const third = await sweep(20_000);
  assert.deepEqual([third.removedPacks + third.repackedPacks, third.crowded], [0, second.crowded]);
  const last = await sweep(second.crowded!.copyBytes);
  assert.deepEqual([last.repackedPacks, last.crowded, last.unusedBytes], [1, null, 0]);
  assert.equal((await previewSweep(repository, optionsOf(fixture, { maxWaste: 0 }))).bytesFreed, 0);
  assert.deepEqual(await storage.list("locks"), []);
  resticCheck(fixture.path);
});
