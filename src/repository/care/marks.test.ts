import { strict as assert } from "node:assert";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { uptime } from "node:os";
import { describe, test } from "node:test";
import { encodeMarks, type PruneMarks } from "../../formats/restic/prune-marks.ts";
import type { Snapshot } from "../../formats/restic/snapshot.ts";
import { thisProcess } from "../../fs/lock-owner.ts";
import { objectIdOf } from "../../ids.ts";
import { BlobIndex, type MarkFile } from "../index/blob-index.ts";
import type { ListedSnapshot } from "../repository.ts";
import { Repository } from "../repository.ts";
import type { FileKind, StorageCall, StoredFile } from "../storage/storage.ts";
import { WrappedStorage } from "../storage/wrapped.ts";
import { assertComplete, PASSWORD, randomFiles, resticCheck, TestArchive, withRepository } from "../testing-archive.ts";
import { compact } from "./compact.ts";
import { dropMarks, marksNow, SECOND_LOOK_MS } from "./marks.ts";
import { planIndexRepair, runIndexRepair } from "./repair.ts";
import { removeSnapshots, runSweep, type SweepOptions, type SweepResult } from "./remove.ts";

const HOUR = 3_600_000;
const PACK = "ab".repeat(32);
const TREE = "cd".repeat(32);

/** A storage on another machine whose clock the test sets. */
class TimedStorage extends WrappedStorage {
  clock: number | null = Date.parse("2026-11-27T12:00:00Z");
  readonly written = new Map<string, number>();
  override localPath = undefined as never;
  override now = async (): Promise<number | null> => this.clock;

  override async save(...given: Parameters<WrappedStorage["save"]>): Promise<void> {
    await super.save(...given);
    this.written.set(given[1], this.clock ?? 0);
  }

  override async list(kind: FileKind, call?: StorageCall): Promise<StoredFile[]> {
    const files = await super.list(kind, call);
    return files.map(({ name, size }) => ({ name, size, writtenAt: this.written.get(name) }));
  }
}

interface Scene {
  storage: TimedStorage;
  repository: Repository;
  archive: TestArchive;
  temporary: string;
  sweep(options?: Partial<SweepOptions>): Promise<SweepResult>;
  later(hours: number): void;
  check(): Promise<void>;
}

async function withScene(run: (scene: Scene) => Promise<void>): Promise<void> {
  await withRepository(async (fixture) => {
    const storage = new TimedStorage(fixture.storage);
    const repository = await Repository.open(storage, { password: PASSWORD });
    const { temporary, folder } = fixture;
    const work = join(folder, "work");
    mkdirSync(work);
    await run({
      storage,
      repository,
      temporary,
      archive: new TestArchive({ repository, temporary }),
      sweep: (options) =>
        runSweep(repository, {
          cachePath: join(folder, "cache"),
          looks: "twice",
          roots: async () => [],
          work: () => work,
          ...options,
        }),
      later: (hours) => void (storage.clock! += hours * HOUR),
      check: async () => {
        await assertComplete(fixture.repository, null);
        resticCheck(fixture.path);
      },
    });
  });
}

/** Makes a pack of which a part is needed: a removed snapshot shares content with one that stays. */
async function savePartlyNeeded(repository: Repository, archive: TestArchive): Promise<void> {
  const keep = randomFiles(3, 4000, "k");
  const { snapshot: gone } = await archive.save({ ...keep, ...randomFiles(5, 4000, "a") });
  await archive.save(keep);
  await removeSnapshots(repository, [gone]);
}

function marks(more: Partial<PruneMarks> = {}): PruneMarks {
  const own = { bootId: thisProcess().bootId, uptimeMs: uptime() * 1000 };
  return { lookedAt: 1000 * HOUR, ...own, trees: new Set([TREE]), packs: [PACK], bytes: 7, ...more };
}

function file(more: Partial<PruneMarks> = {}, writtenAt?: number): MarkFile {
  return { name: "12".repeat(32), writtenAt, marks: marks(more) };
}

function snapshot(tree: string, writtenAt: number | undefined, more: Partial<Snapshot> = {}): ListedSnapshot {
  const made = {
    time: new Date(900 * HOUR).toISOString(),
    tree,
    paths: [],
    hostname: "h",
    username: "u",
    uid: 0,
    gid: 0,
  };
  return { id: objectIdOf(Buffer.alloc(32, 7)), snapshot: { ...made, ...more } as Snapshot, writtenAt };
}

function waitOf(
  found: MarkFile[],
  now: number | null,
  more: { isLocal?: boolean; snapshots?: ListedSnapshot[] } = {},
): number | undefined {
  return marksNow(found, { now, isLocal: false, snapshots: [], ...more }).waits.get(PACK);
}

describe("marksNow", () => {
  test("a mark may be freed 23 hours after its file was written, by the storage's clock", () => {
    assert.equal(waitOf([file()], 1022 * HOUR), HOUR);
    assert.equal(waitOf([file()], 1023 * HOUR), 0);
    assert.equal(waitOf([file({}, 1001 * HOUR)], 1023 * HOUR), HOUR, "a file that was copied here later");
    assert.equal(waitOf([file(), file({ lookedAt: 1010 * HOUR })], 1023 * HOUR), 10 * HOUR, "marked twice");
  });

  test("a mark is never freed if the storage tells no time", () => {
    assert.equal(waitOf([file()], null), Infinity);
    assert.equal(waitOf([file({ lookedAt: null })], 2000 * HOUR), Infinity);
  });

  test("in a local folder a clock that was set forward frees nothing until the machine ran for 23 hours", () => {
    assert.ok(waitOf([file()], 1025 * HOUR, { isLocal: true })! > SECOND_LOOK_MS - HOUR);
    assert.equal(waitOf([file({ bootId: "another" })], 1025 * HOUR, { isLocal: true }), 0);
    assert.equal(waitOf([file()], 1025 * HOUR, { isLocal: false }), 0);
  });

  test("a mark from the future does not count", () => {
    const now = marksNow([file()], { now: 999 * HOUR, isLocal: false, snapshots: [] });
    assert.deepEqual([[...now.waits], now.void.length], [[], 1]);
  });

  test("a listed snapshot that is older than a mark and was not counted drops all marks", () => {
    const wait = (each: ListedSnapshot): number | undefined => waitOf([file()], 1023 * HOUR, { snapshots: [each] });
    assert.equal(wait(snapshot(PACK, 999 * HOUR)), undefined);
    assert.equal(wait(snapshot(PACK, 1001 * HOUR)), 0, "a newer one");
    assert.equal(wait(snapshot(TREE, 999 * HOUR)), 0, "a counted one");
    // Without times of files the snapshot's own counts, unless it was copied.
    assert.equal(wait(snapshot(PACK, undefined)), undefined);
    assert.equal(wait(snapshot(PACK, undefined, { original: objectIdOf(Buffer.alloc(32, 1)) })), 0);
    const end = new Date(1001 * HOUR).toISOString();
    assert.equal(wait(snapshot(PACK, undefined, { summary: { backup_end: end } })), 0, "an old point, sent later");
  });
});

describe("a sweep that looks twice", () => {
  test("frees content 23 hours after it was marked, and not before", async () => {
    await withScene(async ({ repository, archive, sweep, later, check, storage }) => {
      const keep = randomFiles(3, 4000, "k");
      await archive.save(keep);
      const { snapshot: gone } = await archive.save({ ...keep, ...randomFiles(5, 4000, "a") });
      await removeSnapshots(repository, [gone]);
      const packs = (await storage.list("data")).length;
      const first = await sweep();
      assert.deepEqual([first.removedPacks, first.marked.packs, first.marked.waitMs], [0, 2, SECOND_LOOK_MS]);
      later(22);
      assert.deepEqual([(await sweep()).removedPacks, (await storage.list("data")).length], [0, packs]);
      await check();
      later(1);
      const second = await sweep();
      assert.deepEqual([second.removedPacks, second.marked.packs], [2, 0]);
      assert.ok(second.bytesFreed > 20_000);
      assert.deepEqual((await BlobIndex.load(repository, null)).marks, []);
      await check();
    });
  });

  test("a sweep that looks once frees marked packs at once and removes the marks", async () => {
    await withScene(async ({ repository, archive, sweep, check }) => {
      await archive.save(randomFiles(2, 4000, "k"));
      const { snapshot: gone } = await archive.save(randomFiles(2, 4000, "a"));
      await removeSnapshots(repository, [gone]);
      assert.equal((await sweep()).marked.packs, 2);
      assert.equal((await sweep({ looks: "once" })).removedPacks, 2);
      assert.deepEqual((await BlobIndex.load(repository, null)).marks, []);
      await check();
    });
  });

  test("repacks blobs once, keeps the old pack a day, and frees it for the copy", async () => {
    await withScene(async ({ repository, archive, sweep, later, check, storage }) => {
      await savePartlyNeeded(repository, archive);
      const first = await sweep();
      assert.ok(first.repackedPacks >= 1 && first.newPacks >= 1 && first.removedPacks === 0);
      await check();
      for (let hours = 0; hours < 22; hours += 11) {
        later(11);
        assert.equal((await sweep()).newPacks, 0, "nothing is copied again");
      }
      // Lost marks bring no second copy either.
      await dropMarks(repository, (await BlobIndex.load(repository, null)).marks);
      const again = await sweep();
      assert.deepEqual([again.newPacks, again.marked.packs], [0, first.marked.packs]);
      later(23);
      const second = await sweep();
      assert.deepEqual([second.removedPacks, second.newPacks], [first.marked.packs, 0]);
      await check();
      assert.ok((await storage.list("data")).reduce((sum, { size }) => sum + size, 0) < 16_000);
    });
  });

  test("frees no pack for a copy that is listed but gone", async () => {
    await withScene(async ({ repository, archive, sweep, later, check, storage }) => {
      await savePartlyNeeded(repository, archive);
      const before = new Set((await storage.list("data")).map(({ name }) => name));
      await sweep();
      const all = await storage.list("data");
      const copy = all.filter(({ name }) => !before.has(name)).toSorted((a, b) => b.size - a.size)[0]!;
      const bytes = await storage.load("data", copy.name);
      later(23);
      await storage.remove("data", copy.name);
      storage.list = async (kind, call) =>
        kind === "data" ? all : TimedStorage.prototype.list.call(storage, kind, call);
      await assert.rejects(sweep(), { code: "damaged", message: new RegExp(copy.name.slice(0, 8)) });
      await storage.save("data", copy.name, bytes);
      await check();
    });
  });

  test("marks also packs in no index, and frees them a day later", async () => {
    await withScene(async ({ archive, sweep, later, storage, repository }) => {
      await archive.save(randomFiles(2, 4000, "k"));
      const indexed = new Set((await storage.list("index")).map(({ name }) => name));
      const { snapshot: gone } = await archive.save(randomFiles(2, 4000, "a"));
      await removeSnapshots(repository, [gone]);
      for (const { name } of await storage.list("index")) if (!indexed.has(name)) await storage.remove("index", name);
      assert.deepEqual([(await sweep()).removedUnindexed, (await storage.list("data")).length], [0, 4]);
      later(24);
      assert.deepEqual([(await sweep()).removedUnindexed, (await storage.list("data")).length], [2, 2]);
    });
  });

  test("keeps a marked pack that a snapshot needs again, and stores its content anew in the next backup", async () => {
    await withScene(async ({ repository, archive, temporary, sweep, later, check, storage }) => {
      const back = randomFiles(3, 4000, "a");
      await archive.save(randomFiles(2, 4000, "k"));
      const { snapshot: gone } = await archive.save(back);
      await removeSnapshots(repository, [gone]);
      await sweep();
      // restic builds on marked packs.
      const index = await BlobIndex.load(repository, null);
      const { snapshot: again } = await new TestArchive({ repository, temporary }, index).save(back);
      later(24);
      assert.deepEqual([(await sweep()).removedPacks, (await BlobIndex.load(repository, null)).marks.length], [0, 0]);
      await check();
      await removeSnapshots(repository, [again]);
      await sweep();
      later(24);
      assert.equal((await sweep()).removedPacks, 2);
      assert.equal((await storage.list("data")).length, 2);
    });
  });

  test("merges of small packs keep the merged packs a day and merge nothing twice", async () => {
    await withScene(async ({ repository, archive, sweep, later, check, storage }) => {
      for (let i = 0; i < 8; i++) await archive.save(randomFiles(1, 500, `n${i}`));
      const { look, index } = await sweep();
      const merge = { trigger: 4, budgetMs: 5000, look, work: () => join(storage.location, "tmp") };
      mkdirSync(join(storage.location, "tmp"));
      const done = await compact(repository, index!, merge);
      assert.deepEqual([done.mergedPacks, done.newPacks, (await storage.list("data")).length], [16, 2, 18]);
      await check();
      const after = await sweep();
      assert.equal((await compact(repository, after.index!, merge)).mergedPacks, 0);
      later(24);
      assert.equal((await sweep()).removedPacks, 16);
      await check();
    });
  });

  for (const [what, member, code] of [
    ["a newer version", { version: 2 }, "newer_version"],
    ["damage", { version: 1, packs: "all" }, null],
  ] as const)
    test(`marks with ${what} free nothing`, async () => {
      await withScene(async ({ repository, archive, sweep, later, storage, check }) => {
        await archive.save(randomFiles(2, 4000, "k"));
        const json = Buffer.from(JSON.stringify({ packs: [], cairn_marks: member }));
        const name = await repository.saveUnpacked("index", json);
        later(24);
        if (code !== null) await assert.rejects(sweep(), { code, message: new RegExp(name.slice(0, 8)) });
        else {
          const done = await sweep();
          assert.match(done.warnings.join(), new RegExp(name.slice(0, 8)));
          assert.equal(done.removedPacks, 0);
        }
        assert.equal(await storage.exists("index", name), code !== null);
        await check();
      });
    });

  test("marks survive a repair of the index and a merge of index files", async () => {
    await withScene(async ({ repository, archive, sweep, later, storage }) => {
      for (let i = 0; i < 6; i++) await archive.save(randomFiles(1, 500, `n${i}`));
      const { snapshot: gone } = await archive.save(randomFiles(2, 4000, "a"));
      await removeSnapshots(repository, [gone]);
      await sweep();
      const listing = [...(await BlobIndex.load(repository, null)).covered][0]!;
      await storage.remove("index", listing);
      const plan = await planIndexRepair(repository);
      assert.ok(plan.add.length > 0);
      await runIndexRepair(repository, plan);
      const { marks: found } = await BlobIndex.load(repository, null);
      assert.equal(found.length, 1);
      const work = join(storage.location, "tmp");
      mkdirSync(work);
      const { mergedIndexes } = await compact(repository, await BlobIndex.load(repository, null), {
        trigger: 3,
        budgetMs: 5000,
        work: () => work,
      });
      assert.ok(mergedIndexes > 1);
      assert.equal(await storage.exists("index", found[0]!.name), true);
      later(24);
      assert.ok((await sweep()).removedPacks >= 1);
    });
  });
});

test("an index file with marks has no packs and one member more", () => {
  const text = Buffer.from(encodeMarks(marks({ lookedAt: 0, bootId: "b", uptimeMs: 1.5 }))).toString();
  assert.equal(
    text,
    `{"packs":[],"cairn_marks":{"version":1,"looked_at":"1970-01-01T00:00:00.000Z","boot_id":"b","uptime_ms":1,"trees":["${TREE}"],"packs":["${PACK}"],"bytes":7}}`,
  );
});
