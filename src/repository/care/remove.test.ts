import { strict as assert } from "node:assert";
import { existsSync, readFileSync, rmSync, truncateSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { CairnError } from "../../errors.ts";
import { objectIdOf } from "../../ids.ts";
import { BlobIndex } from "../index/blob-index.ts";
import { loadIndexFile } from "../index/index-set.ts";
import { acquireLock } from "../locks.ts";
import { NearPacks } from "../read/near-packs.ts";
import { previewSweep, removeSnapshots, runSweep, type SweepOptions } from "./remove.ts";
import { removeUnindexedPacks } from "./unindexed-packs.ts";
import { planIndexRepair, runIndexRepair } from "./repair.ts";
import {
  checkStructure,
  liveFrom,
  markedPack,
  randomFiles,
  restic,
  resticCheck,
  resticInstalled,
  sha,
  spoilBlob,
  TestArchive,
  treeReader,
  repositoryFor,
  writeTree,
  type Fixture,
} from "../testing-archive.ts";

function coded(code: string): (error: unknown) => boolean {
  return (error) => error instanceof CairnError && error.code === code;
}

function optionsOf(fixture: Fixture, more: Partial<SweepOptions> = {}): SweepOptions {
  return {
    cachePath: join(fixture.folder, "cache"),
    roots: async () => [],
    mayBeEmpty: true,
    ...more,
  };
}

function restored(fixture: Fixture, snapshot: string, files: Record<string, Uint8Array>): void {
  if (!resticInstalled) return;
  const out = join(fixture.folder, "out");
  rmSync(out, { recursive: true, force: true });
  restic(fixture.path, ["restore", snapshot, "--target", out]);
  for (const [name, content] of Object.entries(files))
    assert.deepEqual(readFileSync(join(out, "folder", name)), Buffer.from(content));
}

/** A pack of which a half is needed, with one of its files, `k0` to `k3` (needed) or `a0` to `a3`, damaged. */
async function halfDead(
  fixture: Fixture,
  damaged: string,
): Promise<{ pack: string; keep: Record<string, Uint8Array> }> {
  const archive = new TestArchive(fixture);
  const keep = randomFiles(4, 3000, "k");
  const files = { ...keep, ...randomFiles(4, 3000, "a") };
  const both = await archive.save(files);
  await archive.save(keep);
  await removeSnapshots(fixture.repository, [both.snapshot]);
  return { pack: await spoilBlob(fixture, sha(files[damaged]!)), keep };
}

describe("liveFrom", () => {
  test("liveFrom marks exactly the blobs below the roots as live", async (t) => {
    const fixture = await repositoryFor(t);
    const archive = new TestArchive(fixture);
    const shared = randomFiles(3, 500, "s");
    const a = await archive.save({ ...shared, ...randomFiles(2, 500, "a") });
    const b = await archive.save({ ...shared, ...randomFiles(4, 500, "b") });
    const index = await BlobIndex.load(fixture.repository, null);
    const readTree = treeReader(fixture, index);
    const live = await liveFrom(index, [a.tree], readTree);
    assert.equal(live.complete, true);
    assert.equal(live.size, 2 + 5);
    await live.mark([a.tree, b.tree], readTree);
    assert.equal(live.size, index.count);
    assert.equal(live.has(index.lookup(sha(shared["s1"]!), 0)), true);
  });

  test("liveFrom names a missing root, tree or blob, and marks the result incomplete", async (t) => {
    const fixture = await repositoryFor(t);
    const { tree } = await new TestArchive(fixture).save(randomFiles(2, 100));
    const index = await BlobIndex.load(fixture.repository, null);
    const readTree = treeReader(fixture, index);
    const missing = await liveFrom(index, [sha(Buffer.from("no such"))], readTree);
    assert.deepEqual(
      missing.problems.map((p) => p.kind),
      ["missing_tree"],
    );
    const broken = await liveFrom(index, [tree], () => {
      throw new CairnError("damaged", "broken");
    });
    assert.deepEqual(
      broken.problems.map((p) => p.kind),
      ["damaged_tree"],
    );
    const nonsense = await liveFrom(index, [tree], () => Buffer.from("not a tree"));
    assert.deepEqual(
      nonsense.problems.map((p) => p.kind),
      ["damaged_tree"],
    );
    const trees = new BlobIndex();
    for (const { name } of await fixture.storage.list("index"))
      for (const pack of (await loadIndexFile(fixture.repository, name)).packs)
        if (pack.blobs[0]!.type === "tree") pack.addTo(trees);
    const lost = await liveFrom(trees, [tree], treeReader(fixture, trees));
    assert.deepEqual(
      lost.problems.map((p) => p.kind),
      ["missing_data", "missing_data"],
    );
    assert.equal(lost.complete, false);
  });
});

describe("sweep", () => {
  test("a sweep throws busy and removes nothing if its lock was removed", async (t) => {
    const fixture = await repositoryFor(t);
    const { repository, storage } = fixture;
    const { snapshot } = await new TestArchive(fixture).save(randomFiles(2, 500, "a"));
    await removeSnapshots(repository, [snapshot]);
    const before = [await storage.list("index"), await storage.list("data")];
    let asked = 0;
    const roots = async (): Promise<Uint8Array[]> => {
      // The second time under the exclusive lock.
      if (++asked === 2) for (const { name } of await storage.list("locks")) await storage.remove("locks", name);
      return [];
    };
    await assert.rejects(runSweep(repository, optionsOf(fixture, { roots })), coded("busy"));
    assert.deepEqual([await storage.list("index"), await storage.list("data")], before);
    assert.equal((await runSweep(repository, optionsOf(fixture))).removedPacks, 2);
  });

  test("a sweep removes old unfinished files even if it frees no content", async (t) => {
    const fixture = await repositoryFor(t);
    await new TestArchive(fixture).save(randomFiles(2, 500));
    const [old, young] = ["old", "young"].map((name) => join(fixture.temporary, name)) as [string, string];
    for (const file of [old, young]) writeFileSync(file, "x");
    utimesSync(old, 1, 1);
    const swept = await runSweep(fixture.repository, optionsOf(fixture));
    assert.equal(swept.removedPacks, 0);
    assert.deepEqual(
      [old, young].map((file) => existsSync(file)),
      [false, true],
    );
  });

  test("a sweep frees content that only removed snapshots needed", async (t) => {
    const fixture = await repositoryFor(t);
    const archive = new TestArchive(fixture);
    const keep = randomFiles(5, 4000, "k");
    const a = await archive.save({ ...keep, ...randomFiles(5, 4000, "a") });
    const b = await archive.save({ ...keep, ...randomFiles(5, 4000, "b") });
    const options = optionsOf(fixture);
    assert.equal((await previewSweep(fixture.repository, options)).bytesFreed, 0);
    const preview = await previewSweep(fixture.repository, { ...options, withoutSnapshots: new Set([a.snapshot]) });
    assert.ok(preview.bytesFreed > 20_000);
    assert.equal(await removeSnapshots(fixture.repository, [a.snapshot, a.snapshot]), 1);
    const before = (await fixture.storage.list("data")).reduce((sum, file) => sum + file.size, 0);
    const result = await runSweep(fixture.repository, options);
    const after = (await fixture.storage.list("data")).reduce((sum, file) => sum + file.size, 0);
    assert.equal(result.postponed, false);
    assert.equal(result.bytesFreed, before - after);
    assert.ok(before - after > 20_000);
    resticCheck(fixture.path);
    restored(fixture, b.snapshot, keep);
    const { index, ...again } = await runSweep(fixture.repository, options);
    assert.deepEqual([...index!.covered], [...(await BlobIndex.load(fixture.repository, null)).covered]);
    assert.deepEqual(again, {
      removedPacks: 0,
      repackedPacks: 0,
      newPacks: 0,
      removedUnindexed: 0,
      replacedIndexes: 0,
      bytesFreed: 0,
      unusedBytes: 0,
      crowded: null,
      postponed: false,
      damagedPacks: [],
      lacking: [],
      marked: { packs: 0, bytes: 0, waitMs: 0 },
      warnings: [],
      look: null,
      missing: [],
      unlisted: [],
    });
    assert.deepEqual(await fixture.storage.list("locks"), []);
  });

  test("a sweep reports the unused bytes in packs that it does not rewrite", async (t) => {
    const fixture = await repositoryFor(t);
    const archive = new TestArchive(fixture);
    const keep = randomFiles(5, 4000, "k");
    const a = await archive.save({ ...keep, ...randomFiles(5, 4000, "a") });
    await archive.save(keep);
    await removeSnapshots(fixture.repository, [a.snapshot]);
    const options = { ...optionsOf(fixture), maxWaste: 1, smallPack: 0 };
    const preview = await previewSweep(fixture.repository, options);
    assert.ok(preview.unusedBytes > 20_000, String(preview.unusedBytes));
    assert.equal((await runSweep(fixture.repository, options)).unusedBytes, preview.unusedBytes);
    assert.equal((await runSweep(fixture.repository, { ...options, maxWaste: 0 })).unusedBytes, 0);
  });

  test("a sweep keeps content below roots that the caller names", async (t) => {
    const fixture = await repositoryFor(t);
    const a = await new TestArchive(fixture).save(randomFiles(3, 1000));
    await removeSnapshots(fixture.repository, [a.snapshot]);
    await runSweep(fixture.repository, optionsOf(fixture, { roots: async () => [a.tree] }));
    assert.equal((await BlobIndex.load(fixture.repository, null)).count, 5);
    await runSweep(fixture.repository, optionsOf(fixture));
    assert.equal((await BlobIndex.load(fixture.repository, null)).count, 0);
    assert.deepEqual(await fixture.storage.list("data"), []);
    assert.deepEqual(await fixture.storage.list("index"), []);
    resticCheck(fixture.path);
  });

  test("a sweep removes nothing if a snapshot, index file or tree cannot be read", async (t) => {
    const fixture = await repositoryFor(t);
    const archive = new TestArchive(fixture);
    const a = await archive.save(randomFiles(2, 100, "a"));
    const b = await archive.save(randomFiles(2, 100, "b"));
    await removeSnapshots(fixture.repository, [a.snapshot]);
    const count = (await fixture.storage.list("data")).length;
    const file = join(fixture.path, "snapshots", b.snapshot);
    const bytes = readFileSync(file);
    writeFileSync(file, "x");
    await assert.rejects(runSweep(fixture.repository, optionsOf(fixture)), coded("damaged"));
    writeFileSync(file, bytes);
    const [index] = await fixture.storage.list("index");
    const indexBytes = readFileSync(join(fixture.path, "index", index!.name));
    writeFileSync(join(fixture.path, "index", index!.name), "x");
    await assert.rejects(runSweep(fixture.repository, optionsOf(fixture)), coded("damaged"));
    writeFileSync(join(fixture.path, "index", index!.name), indexBytes);
    const known = await BlobIndex.load(fixture.repository, null);
    const { pack, offset } = known.place(known.lookup(b.tree, 0));
    const treeFile = fixture.storage.localPath("data", objectIdOf(pack));
    const packBytes = readFileSync(treeFile);
    writeFileSync(treeFile, Buffer.from(packBytes).fill(7, offset, offset + 20));
    await assert.rejects(runSweep(fixture.repository, optionsOf(fixture)), coded("damaged"));
    writeFileSync(treeFile, packBytes);
    await assert.rejects(
      runSweep(fixture.repository, optionsOf(fixture, { roots: async () => [sha(Buffer.from("?"))] })),
      coded("damaged"),
    );
    assert.equal((await fixture.storage.list("data")).length, count);
    assert.ok((await runSweep(fixture.repository, optionsOf(fixture))).removedPacks > 0);
    resticCheck(fixture.path);
  });

  test("a sweep plans again if a save has started to use content that was unused", async (t) => {
    const fixture = await repositoryFor(t);
    const a = await new TestArchive(fixture).save(randomFiles(3, 1000));
    await removeSnapshots(fixture.repository, [a.snapshot]);
    let calls = 0;
    const roots = async (): Promise<Uint8Array[]> => (++calls > 1 ? [a.tree] : []);
    const result = await runSweep(fixture.repository, optionsOf(fixture, { roots }));
    assert.equal(result.removedPacks, 0);
    assert.equal(result.postponed, false);
    assert.ok(calls >= 3);
    const index = await BlobIndex.load(fixture.repository, null);
    assert.equal((await liveFrom(index, [a.tree], treeReader(fixture, index))).complete, true);
  });

  for (const late of [false, true])
    test(`a sweep that may lack data keeps unindexed packs if ${late ? "a save" : "a root"} needs missing data`, async (t) => {
      const fixture = await repositoryFor(t);
      const { repository, storage } = fixture;
      const files = randomFiles(2, 1000, "lost");
      const lost = await new TestArchive(fixture).save(files);
      const gone = await new TestArchive(fixture).save(randomFiles(2, 1000, "gone"));
      await removeSnapshots(repository, [lost.snapshot, gone.snapshot]);
      const whole = await BlobIndex.load(repository, null);
      await storage.remove("data", objectIdOf(whole.place(whole.lookup(sha(Object.values(files)[0]!), 0)).pack));
      await runIndexRepair(repository, await planIndexRepair(repository));
      const stray = "ab".repeat(32);
      await storage.save("data", stray, Buffer.alloc(100));
      let calls = 0;
      const roots = async (): Promise<Uint8Array[]> => (++calls > 1 || !late ? [lost.tree] : []);
      await assert.rejects(runSweep(repository, optionsOf(fixture, { roots })), coded("damaged"));
      calls = 0;
      const result = await runSweep(repository, optionsOf(fixture, { roots, mayLackData: true }));
      assert.deepEqual([result.postponed, result.removedPacks, result.removedUnindexed], [false, 2, 0]);
      const index = await BlobIndex.load(repository, null);
      assert.deepEqual([index.lookup(lost.tree, 0) >= 0, index.lookup(gone.tree, 0) >= 0], [true, false]);
      assert.equal(await storage.exists("data", stray), true);
    });

  test("a sweep is postponed while another program holds a lock", async (t) => {
    const fixture = await repositoryFor(t);
    const archive = new TestArchive(fixture);
    const keep = randomFiles(4, 3000, "k");
    const a = await archive.save({ ...keep, ...randomFiles(4, 3000, "a") });
    const b = await archive.save(keep);
    await removeSnapshots(fixture.repository, [a.snapshot]);
    const lock = await acquireLock(fixture.repository, { exclusive: false });
    for (let i = 0; i < 3; i++) assert.equal((await runSweep(fixture.repository, optionsOf(fixture))).postponed, true);
    restored(fixture, b.snapshot, keep);
    const packs = (await fixture.storage.list("data")).length;
    await lock.release();
    await runSweep(fixture.repository, optionsOf(fixture));
    assert.ok((await fixture.storage.list("data")).length < packs);
    resticCheck(fixture.path);
    restored(fixture, b.snapshot, keep);
    const again = await runSweep(fixture.repository, optionsOf(fixture));
    assert.equal(again.removedPacks + again.repackedPacks + again.replacedIndexes, 0);
  });

  test("a sweep keeps and names a pack that contains a damaged needed blob", async (t) => {
    const fixture = await repositoryFor(t);
    const { pack, keep } = await halfDead(fixture, "k3");
    const result = await runSweep(fixture.repository, optionsOf(fixture));
    assert.deepEqual(result.damagedPacks, [pack]);
    assert.equal(await fixture.storage.exists("data", pack), true);
    assert.ok((await BlobIndex.load(fixture.repository, null)).lookup(sha(keep["k0"]!), 0) >= 0);
  });

  test("a sweep keeps other copies of a damaged blob, and unindexed packs", async (t) => {
    const fixture = await repositoryFor(t);
    const { repository, storage } = fixture;
    const keep = randomFiles(4, 3000, "k");
    const one = await new TestArchive(fixture).save({ ...keep, ...randomFiles(1, 9000, "y") });
    const two = await new TestArchive(fixture).save({ ...keep, ...randomFiles(1, 9000, "z") });
    const kept = await new TestArchive(fixture, await BlobIndex.load(repository, null)).save(keep);
    await removeSnapshots(repository, [one.snapshot, two.snapshot]);
    const pack = await spoilBlob(fixture, sha(keep["k0"]!));
    const unindexed = sha(Buffer.from("left by who was killed"));
    await storage.save("data", objectIdOf(unindexed), Buffer.alloc(100));
    const large = async (): Promise<string[]> =>
      (await storage.list("data")).filter(({ size }) => size > 20_000).map(({ name }) => name);
    const before = await large();
    for (let round = 0; round < 2; round++) {
      const swept = await runSweep(repository, optionsOf(fixture));
      assert.deepEqual([swept.damagedPacks, swept.removedUnindexed], [[pack], 0]);
      assert.deepEqual(await large(), before);
    }
    const damagedPacks = new Set([pack]);
    const plan = await planIndexRepair(repository, { damagedPacks });
    const { lostBlobs } = await runIndexRepair(repository, plan, { damagedPacks });
    assert.deepEqual(lostBlobs, []);
    const after = await runSweep(repository, optionsOf(fixture));
    assert.deepEqual([after.damagedPacks, after.removedUnindexed], [[], 1]);
    resticCheck(fixture.path);
    restored(fixture, kept.snapshot, keep);
  });

  for (const how of ["cut", "gone"] as const)
    test(`a sweep keeps a pack if the other pack with the same content is ${how === "cut" ? "truncated" : "missing"}`, async (t) => {
      const fixture = await repositoryFor(t);
      const { repository, storage } = fixture;
      const keep = randomFiles(4, 3000, "k");
      const data = async (): Promise<string[]> =>
        (await storage.list("data")).filter(({ size }) => size > 12_000).map(({ name }) => name);
      const kept = await new TestArchive(fixture).save(keep);
      const [first] = await data();
      const more = await new TestArchive(fixture).save({ ...keep, ...randomFiles(1, 9000, "z") });
      const second = (await data()).find((name) => name !== first)!;
      await removeSnapshots(repository, [more.snapshot]);
      const path = storage.localPath("data", first!);
      if (how === "gone") rmSync(path);
      else truncateSync(path, 12_100);
      const swept = await runSweep(repository, optionsOf(fixture, { maxWaste: 1, smallPack: 0 }));
      assert.equal(swept.removedPacks, 2);
      assert.deepEqual(await data(), [second]);
      resticCheck(fixture.path);
      restored(fixture, kept.snapshot, keep);
      truncateSync(storage.localPath("data", second), 12_100);
      await assert.rejects(runSweep(repository, optionsOf(fixture)), {
        code: "damaged",
        message: new RegExp(`pack ${second.slice(0, 8)} is shorter than the index says`),
      });
    });

  test("a sweep does not ask for a work folder if it copies no pack", async (t) => {
    const fixture = await repositoryFor(t);
    const archive = new TestArchive(fixture);
    const gone = await archive.save(randomFiles(2, 3000, "a"));
    await archive.save(randomFiles(2, 3000, "b"));
    await removeSnapshots(fixture.repository, [gone.snapshot]);
    const work = (): string => assert.fail("a folder is asked for");
    const result = await runSweep(fixture.repository, optionsOf(fixture, { work }));
    assert.equal(result.removedPacks, 2);
  });

  test("a sweep rewrites a pack if only unused blobs in it are damaged", async (t) => {
    const fixture = await repositoryFor(t);
    const { pack } = await halfDead(fixture, "a3");
    const result = await runSweep(fixture.repository, optionsOf(fixture));
    assert.deepEqual([result.damagedPacks, result.repackedPacks], [[], 1]);
    assert.equal(await fixture.storage.exists("data", pack), false);
    resticCheck(fixture.path);
  });

  test("removeUnindexedPacks removes unindexed packs unless another program holds a lock", async (t) => {
    const fixture = await repositoryFor(t);
    await new TestArchive(fixture).save(randomFiles(2, 100));
    await fixture.storage.save("data", "ab".repeat(32), Buffer.alloc(100));
    const lock = await acquireLock(fixture.repository, { exclusive: false });
    await assert.rejects(removeUnindexedPacks(fixture.repository), { code: "busy" });
    await lock.release();
    assert.equal((await removeUnindexedPacks(fixture.repository)).removed, 1);
    assert.equal((await removeUnindexedPacks(fixture.repository)).removed, 0);
    resticCheck(fixture.path);
  });

  test("a sweep keeps packs that rustic has marked for removal", async (t) => {
    const fixture = await repositoryFor(t);
    const archive = new TestArchive(fixture);
    const kept = await archive.save(randomFiles(2, 500, "kept"));
    await markedPack(fixture.repository);
    const packs = new NearPacks(fixture.storage, "");
    assert.deepEqual((await checkStructure(fixture.repository, { packs })).problems, []);
    const before = (await fixture.storage.list("data")).length;
    const result = await runSweep(fixture.repository, optionsOf(fixture, { roots: async () => [kept.tree] }));
    assert.deepEqual([result.bytesFreed, (await removeUnindexedPacks(fixture.repository)).removed], [0, 0]);
    assert.equal((await fixture.storage.list("data")).length, before);
    assert.deepEqual((await planIndexRepair(fixture.repository)).add, []);
  });

  test("a sweep frees unused content in packs and index files of restic", { skip: !resticInstalled }, async (t) => {
    const fixture = await repositoryFor(t);
    const files = randomFiles(6, 30_000);
    writeTree(join(fixture.folder, "data"), files);
    restic(fixture.path, ["backup", "data"], fixture.folder);
    const [first] = (await fixture.repository.listSnapshots()).snapshots;
    rmSync(join(fixture.folder, "data/f0"));
    rmSync(join(fixture.folder, "data/f1"));
    restic(fixture.path, ["backup", "data"], fixture.folder);
    await removeSnapshots(fixture.repository, [first!.id]);
    const result = await runSweep(fixture.repository, optionsOf(fixture));
    assert.ok(result.bytesFreed > 50_000);
    resticCheck(fixture.path);
    restic(fixture.path, ["prune"]);
    resticCheck(fixture.path);
  });

  test("BlobIndex.refresh returns false after restic has pruned", { skip: !resticInstalled }, async (t) => {
    const fixture = await repositoryFor(t);
    const archive = new TestArchive(fixture);
    const cache = join(fixture.folder, "cache");
    const keep = randomFiles(2, 3000, "k");
    const a = await archive.save({ ...keep, ...randomFiles(4, 3000, "a") });
    await archive.save(keep);
    const before = await BlobIndex.load(fixture.repository, cache);
    restic(fixture.path, ["forget", a.snapshot, "--prune", "--max-unused", "0"]);
    assert.equal(await before.refresh(fixture.repository), false);
    const after = await BlobIndex.load(fixture.repository, cache);
    assert.notEqual(after.epoch, before.epoch);
    assert.equal(after.count, 4);
    await archive.save(randomFiles(2, 100, "z"));
    resticCheck(fixture.path);
    assert.equal((await runSweep(fixture.repository, optionsOf(fixture))).removedPacks, 0);
  });
});
