import { strict as assert } from "node:assert";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test, type TestContext } from "node:test";
import { setImmediate } from "node:timers/promises";
import { objectIdOf } from "../../ids.ts";
import { BlobIndex } from "./blob-index.ts";
import { compact } from "../care/compact.ts";
import { previewSweep, runSweep, type SweepOptions } from "../care/remove.ts";
import { removeUnindexedPacks } from "../care/unindexed-packs.ts";
import { planIndexRepair, runIndexRepair } from "../care/repair.ts";
import { Repository } from "../repository.ts";
import { CountingStorage } from "../storage/testing-counting.ts";
import {
  type Fixture,
  PASSWORD,
  randomFiles,
  resticCheck,
  sha,
  spoilBlob,
  TestArchive,
  repositoryFor,
} from "../testing-archive.ts";

const MANY = 64;

interface Left {
  /** A pack of content in no index, with the same blobs as `damaged`. */
  left: string;
  /** A pack of an index, one blob of it damaged. */
  damaged: string;
}

interface Leaving {
  /** Bytes of each of three files. A compaction merges small packs. */
  size?: number;
  /** Number of further saves. */
  others?: number;
  spoil?: Parameters<typeof spoilBlob>[2];
}

/** A killed writer's packs were stored again; then the indexed copy was damaged. */
async function leftBesideDamage(fixture: Fixture, { size = 400_000, others = 0, spoil }: Leaving = {}): Promise<Left> {
  const { storage } = fixture;
  const files = randomFiles(3, size, "again");
  await new TestArchive(fixture).save(files);
  const left = (await storage.list("data")).toSorted((a, b) => a.size - b.size).at(-1)!.name;
  for (const { name } of await storage.list("index")) await storage.remove("index", name);
  const archive = new TestArchive(fixture);
  await archive.save(files);
  for (let i = 0; i < others; i++) await archive.save(randomFiles(2, 100, `n${i}`));
  return { left, damaged: await spoilBlob(fixture, sha(files["again0"]!), spoil) };
}

/** The pack in no index is there, and a repair loses nothing. */
async function assertMended(fixture: Fixture, { left, damaged }: Left): Promise<void> {
  assert.ok(await fixture.storage.exists("data", left));
  const damagedPacks = new Set([damaged]);
  const plan = await planIndexRepair(fixture.repository, { damagedPacks });
  assert.deepEqual((await runIndexRepair(fixture.repository, plan, { damagedPacks })).lostBlobs, []);
  resticCheck(fixture.path);
}

describe("unindexed packs with a damaged indexed copy", () => {
  for (const [what, leaving, removed] of [
    ["damaged", {}, 1],
    ["truncated", { spoil: (bytes) => bytes.subarray(0, -1000) }, 1],
    ["small and damaged", { size: 2000 }, 0],
  ] as [string, Leaving, number][])
    test(`a compaction keeps an unindexed pack if its indexed copy is ${what}`, async (t) => {
      const fixture = await repositoryFor(t);
      const there = await leftBesideDamage(fixture, { ...leaving, others: 5 });
      const index = await BlobIndex.load(fixture.repository, null);
      const options = { trigger: 5, budgetMs: Infinity };
      const { mergedIndexes, removedUnindexed, damagedPacks } = await compact(fixture.repository, index, options);
      assert.deepEqual([mergedIndexes, removedUnindexed, damagedPacks], [6, removed, [there.damaged]]);
      await assertMended(fixture, there);
    });

  test("a sweep keeps an unindexed pack if its indexed copy is damaged, and names the damaged pack", async (t) => {
    const fixture = await repositoryFor(t);
    const there = await leftBesideDamage(fixture);
    const options: SweepOptions = { cachePath: join(fixture.folder, "cache"), roots: async () => [] };
    const swept = await runSweep(fixture.repository, options);
    assert.deepEqual([swept.removedUnindexed, swept.damagedPacks], [0, [there.damaged]]);
    await assertMended(fixture, there);
    assert.deepEqual((await runSweep(fixture.repository, options)).damagedPacks, []);
  });

  test("removeUnindexedPacks keeps an unindexed pack if its indexed copy is damaged", async (t) => {
    const fixture = await repositoryFor(t);
    const there = await leftBesideDamage(fixture);
    const done = await removeUnindexedPacks(fixture.repository);
    assert.deepEqual(done, { removed: 1, damagedPacks: [there.damaged] });
    await assertMended(fixture, there);
  });
});

describe("many unindexed packs", () => {
  async function manyPacks(t: TestContext): Promise<{ storage: CountingStorage; options: SweepOptions }> {
    const fixture = await repositoryFor(t);
    await new TestArchive(fixture).save(randomFiles(1, 100));
    const [listed] = await fixture.storage.list("data");
    const pack = readFileSync(fixture.storage.localPath("data", listed!.name));
    for (let i = 0; i < MANY; i++) await fixture.storage.save("data", objectIdOf(sha(Buffer.from(`${i}`))), pack);
    const options = { cachePath: join(fixture.folder, "cache"), roots: async () => [] };
    return { storage: new CountingStorage(fixture.storage), options };
  }

  test("a sweep reads many unindexed packs concurrently", async (t) => {
    const { storage, options } = await manyPacks(t);
    const repository = await Repository.open(storage, { password: PASSWORD });
    const load = storage.load.bind(storage);
    let [underWay, most] = [0, 0];
    storage.load = async (...given) => {
      most = Math.max(most, ++underWay);
      // All that were asked for at once are under way before the first is answered.
      await setImmediate();
      return load(...given).finally(() => underWay--);
    };
    assert.equal((await previewSweep(repository, options)).unindexed.length, MANY);
    assert.ok(storage.count("load", "data") >= 2 * MANY);
    assert.ok(most >= 4, `${most} at once`);
  });

  test("an aborted sweep stops reading unindexed packs", async (t) => {
    const { storage, options } = await manyPacks(t);
    const repository = await Repository.open(storage, { password: PASSWORD });
    const controller = new AbortController();
    const load = storage.load.bind(storage);
    storage.load = async (kind, ...given) => {
      if (kind === "data") controller.abort();
      return load(kind, ...given);
    };
    await assert.rejects(previewSweep(repository, { ...options, signal: controller.signal }), {
      code: "interrupted",
    });
    assert.ok(storage.count("load", "data") < MANY);
  });
});
