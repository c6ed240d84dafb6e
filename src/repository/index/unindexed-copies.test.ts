import { strict as assert } from "node:assert";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
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
  TestArchive,
  withRepository,
} from "../testing-archive.ts";

const MANY = 64;

interface Left {
  files: Record<string, Uint8Array>;
  /** In no index, with the same content as what an index lists. */
  left: string[];
  /** What an index lists, one blob of it damaged. */
  damaged: string;
}

/** What a killed writer has left was stored again; then a byte of that went wrong. */
async function leftBesideDamage(fixture: Fixture, index: "listed" | "merged"): Promise<Left> {
  const { repository, storage } = fixture;
  // Too much to be merged.
  const files = randomFiles(3, 400_000, "again");
  await new TestArchive(fixture).save(files);
  const left = (await storage.list("data")).map(({ name }) => name);
  for (const { name } of await storage.list("index")) await storage.remove("index", name);
  const archive = new TestArchive(fixture);
  await archive.save(files);
  if (index === "merged") for (let i = 0; i < 5; i++) await archive.save(randomFiles(2, 100, `n${i}`));
  const known = await BlobIndex.load(repository, null);
  const { pack, offset } = known.place(known.lookup(sha(files["again0"]!), 0));
  const damaged = objectIdOf(pack);
  const path = storage.localPath("data", damaged);
  const bytes = readFileSync(path);
  bytes[offset + 100]! ^= 1;
  writeFileSync(path, bytes);
  return { files, left, damaged };
}

/** Those that are still there, of what was left with content; of the trees nothing is damaged. */
async function largeOf({ storage }: Fixture, { left }: Left): Promise<string[]> {
  return (await storage.list("data"))
    .filter(({ name, size }) => left.includes(name) && size > 1e6)
    .map(({ name }) => name);
}

async function assertMended(fixture: Fixture, { damaged }: Left): Promise<void> {
  const damagedPacks = new Set([damaged]);
  const plan = await planIndexRepair(fixture.repository, { damagedPacks });
  assert.deepEqual((await runIndexRepair(fixture.repository, plan, { damagedPacks })).lostBlobs, []);
  resticCheck(fixture.path);
}

describe("unindexed packs with a damaged indexed copy", () => {
  test("a compaction keeps an unindexed pack if its indexed copy is damaged", async () => {
    await withRepository(async (fixture) => {
      const there = await leftBesideDamage(fixture, "merged");
      const index = await BlobIndex.load(fixture.repository, null);
      const { mergedIndexes, removedUnindexed, damagedPacks } = await compact(fixture.repository, index, {
        trigger: 5,
        budgetMs: Infinity,
      });
      assert.deepEqual([mergedIndexes, removedUnindexed, damagedPacks], [6, 1, [there.damaged]]);
      assert.equal((await largeOf(fixture, there)).length, 1);
      await assertMended(fixture, there);
    });
  });

  test("a sweep keeps an unindexed pack if its indexed copy is damaged, and names the damaged pack", async () => {
    await withRepository(async (fixture) => {
      const there = await leftBesideDamage(fixture, "listed");
      const options: SweepOptions = { cachePath: join(fixture.folder, "cache"), roots: async () => [] };
      const swept = await runSweep(fixture.repository, options);
      assert.deepEqual([swept.removedUnindexed, swept.damagedPacks], [0, [there.damaged]]);
      assert.equal((await largeOf(fixture, there)).length, 1);
      await assertMended(fixture, there);
      assert.deepEqual((await runSweep(fixture.repository, options)).damagedPacks, []);
    });
  });

  test("removeUnindexedPacks keeps an unindexed pack if its indexed copy is damaged", async () => {
    await withRepository(async (fixture) => {
      const there = await leftBesideDamage(fixture, "listed");
      const done = await removeUnindexedPacks(fixture.repository);
      assert.deepEqual(done, { removed: 1, damagedPacks: [there.damaged] });
      assert.equal((await largeOf(fixture, there)).length, 1);
      await assertMended(fixture, there);
    });
  });
});

describe("many unindexed packs", () => {
  async function withMany(run: (storage: CountingStorage, options: SweepOptions) => Promise<void>): Promise<void> {
    await withRepository(async (fixture) => {
      await new TestArchive(fixture).save(randomFiles(1, 100));
      const [listed] = await fixture.storage.list("data");
      const pack = readFileSync(fixture.storage.localPath("data", listed!.name));
      for (let i = 0; i < MANY; i++) await fixture.storage.save("data", objectIdOf(sha(Buffer.from(`${i}`))), pack);
      const storage = new CountingStorage(fixture.storage);
      const options: SweepOptions = { cachePath: join(fixture.folder, "cache"), roots: async () => [] };
      await run(storage, options);
    });
  }

  test("a sweep reads many unindexed packs concurrently", async () => {
    await withMany(async (storage, options) => {
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
  });

  test("an aborted sweep stops reading unindexed packs", async () => {
    await withMany(async (storage, options) => {
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
});
