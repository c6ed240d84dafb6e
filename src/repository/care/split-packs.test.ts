import { strict as assert } from "node:assert";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { describe, test } from "node:test";
import type { IndexBlob } from "../../formats/restic/pack-header.ts";
import { objectIdOf } from "../../ids.ts";
import { BlobIndex } from "../index/blob-index.ts";
import { compact } from "./compact.ts";
import { loadIndexFile } from "../index/index-set.ts";
import { NearPacks } from "../read/near-packs.ts";
import { removeSnapshots, runSweep, type SweepOptions } from "./remove.ts";
import { planIndexRepair, runIndexRepair } from "./repair.ts";
import {
  checkStructure,
  randomFiles,
  restic,
  resticCheck,
  resticInstalled,
  TestArchive,
  repositoryFor,
  type Fixture,
} from "../testing-archive.ts";

/** Packs whose entries are in two index files, here these and there those, as restic before 0.10 left them. */

interface Listing {
  readonly id: Uint8Array;
  readonly blobs: readonly IndexBlob[];
}

async function listings({ repository, storage }: Fixture): Promise<Listing[]> {
  const files = await storage.list("index");
  const packs = await Promise.all(files.map(async ({ name }) => (await loadIndexFile(repository, name)).packs));
  return packs.flat().map(({ id, blobs }) => ({ id, blobs }));
}

/** Of this pack, only these of its blobs. */
function part({ id, blobs }: Listing, from: number, to?: number): Listing {
  return { id, blobs: blobs.slice(from, to) };
}

/** Index files that list this, in the order of their names, in place of all that are there. Returns their names. */
async function indexAs({ repository, storage }: Fixture, files: readonly Listing[][]): Promise<string[]> {
  const names: string[] = [];
  const old = await storage.list("index");
  for (const listed of files) {
    const packs = listed.map(({ id, blobs }) => ({
      id: objectIdOf(id),
      blobs: blobs.map(({ id: blob, type, offset, length, uncompressedLength: plain }) => ({
        id: objectIdOf(blob),
        type,
        offset,
        length,
        ...(plain > 0 ? { uncompressed_length: plain } : {}),
      })),
    }));
    for (;;) {
      // Sealed anew it has another name.
      const name = await repository.saveUnpacked("index", Buffer.from(JSON.stringify({ packs })));
      const share = Number.parseInt(name.slice(0, 2), 16) / 0x100;
      if (Math.floor(share * files.length) === names.length) {
        names.push(name);
        break;
      }
      await storage.remove("index", name);
    }
  }
  for (const { name } of old) await storage.remove("index", name);
  return names;
}

/** A snapshot of six files in one pack, as listed, and everything else that is listed. */
async function sixFiles(
  fixture: Fixture,
): Promise<{ pack: Listing; rest: Listing[]; files: Record<string, Uint8Array> }> {
  const files = randomFiles(6, 3000, "k");
  await new TestArchive(fixture).save(files);
  const all = await listings(fixture);
  const pack = all.find(({ blobs }) => blobs.length === 6)!;
  return { pack, rest: all.filter((each) => each !== pack), files };
}

async function packNames({ storage }: Fixture): Promise<string[]> {
  return (await storage.list("data")).map(({ name }) => name).sort();
}

async function problems(fixture: Fixture): Promise<string[]> {
  const report = await checkStructure(fixture.repository, { packs: new NearPacks(fixture.storage, "") });
  report.blobs.close();
  return report.problems.map(({ kind, object }) => `${kind} ${object}`);
}

async function assertSound(fixture: Fixture): Promise<void> {
  assert.deepEqual(await problems(fixture), []);
  resticCheck(fixture.path);
}

describe("repair of the index", () => {
  const cases: Record<string, (pack: Listing) => Listing[]> = {
    "in two parts": (pack) => [part(pack, 0, 3), part(pack, 3)],
    "whole after a part of it": (pack) => [part(pack, 0, 1), pack],
    "whole before a part of it": (pack) => [pack, part(pack, 0, 1)],
    "in a part that is not its beginning": (pack) => [part(pack, 3)],
  };
  for (const [how, partsOf] of Object.entries(cases))
    test(`a repair lists a sound pack once and completely if it was listed ${how}`, async (t) => {
      const fixture = await repositoryFor(t);
      const { pack, rest } = await sixFiles(fixture);
      const parts = partsOf(pack);
      await indexAs(fixture, [[...rest, parts[0]!], ...parts.slice(1).map((each) => [each])]);
      const before = await packNames(fixture);
      const plan = await planIndexRepair(fixture.repository);
      assert.deepEqual(
        [plan.add, plan.drop].map((packs) => packs.map(({ name }) => name)),
        [[objectIdOf(pack.id)], [objectIdOf(pack.id)]],
      );
      const result = await runIndexRepair(fixture.repository, plan);
      assert.deepEqual([result.savedBlobs, result.lostBlobs], [0, []]);
      assert.deepEqual(await packNames(fixture), before);
      assert.deepEqual((await listings(fixture)).length, 1 + rest.length);
      const again = await planIndexRepair(fixture.repository);
      assert.deepEqual([again.add, again.drop, again.rewrite], [[], [], []]);
      await assertSound(fixture);
    });

  test("a repair copies all sound blobs of a damaged pack that two index files list in parts", async (t) => {
    const fixture = await repositoryFor(t);
    const { pack, rest } = await sixFiles(fixture);
    await indexAs(fixture, [[...rest, part(pack, 0, 3)], [part(pack, 3)]]);
    const path = fixture.storage.localPath("data", objectIdOf(pack.id));
    const bytes = readFileSync(path);
    bytes[pack.blobs[1]!.offset + 100]! ^= 1;
    writeFileSync(path, bytes);
    const damagedPacks = new Set([objectIdOf(pack.id)]);
    const plan = await planIndexRepair(fixture.repository, { damagedPacks });
    const result = await runIndexRepair(fixture.repository, plan, { damagedPacks });
    const lost = objectIdOf(pack.blobs[1]!.id);
    assert.deepEqual([result.savedBlobs, result.lostBlobs], [5, [lost]]);
    assert.deepEqual(await problems(fixture), [`blob_missing ${lost}`]);
  });

  test("a repair keeps a damaged pack if another index file still lists it", async (t) => {
    const fixture = await repositoryFor(t);
    const { pack, rest } = await sixFiles(fixture);
    const [first] = await indexAs(fixture, [[...rest, pack], [pack]]);
    const damagedPacks = new Set([objectIdOf(pack.id)]);
    const plan = await planIndexRepair(fixture.repository, { damagedPacks });
    assert.equal(plan.rewrite.length, 2);
    await runIndexRepair(fixture.repository, { ...plan, rewrite: [first!] }, { damagedPacks });
    assert.ok((await packNames(fixture)).includes(objectIdOf(pack.id)));
  });

  test("a repair keeps the entries of a partly listed pack if its header is unreadable", async (t) => {
    const fixture = await repositoryFor(t);
    const { pack, rest } = await sixFiles(fixture);
    await new TestArchive(fixture).save(randomFiles(7, 3000, "lost"));
    const lost = (await listings(fixture)).find(({ blobs }) => blobs.length === 7)!;
    await indexAs(fixture, [[...rest, lost, part(pack, 3)]]);
    rmSync(fixture.storage.localPath("data", objectIdOf(lost.id)));
    const path = fixture.storage.localPath("data", objectIdOf(pack.id));
    const bytes = readFileSync(path);
    bytes[bytes.length - 10]! ^= 1;
    writeFileSync(path, bytes);
    await runIndexRepair(fixture.repository, await planIndexRepair(fixture.repository));
    const index = await BlobIndex.load(fixture.repository, null);
    for (const blob of pack.blobs.slice(3)) assert.equal(index.place(index.entryOf(blob)).offset, blob.offset);
  });
});

describe("sweep", () => {
  const optionsOf = (): SweepOptions => ({
    cachePath: null,
    roots: async () => [],
  });

  test("a sweep that rewrites an index file keeps the entries of blobs that only this file lists", async (t) => {
    const fixture = await repositoryFor(t);
    const { pack, rest } = await sixFiles(fixture);
    const { snapshot } = await new TestArchive(fixture).save(randomFiles(2, 3000, "dead"));
    const known = new Set([pack, ...rest].map(({ id }) => objectIdOf(id)));
    const dead = (await listings(fixture)).filter(({ id }) => !known.has(objectIdOf(id)));
    await indexAs(fixture, [[...dead, ...rest, part(pack, 0, 3)], [part(pack, 3)]]);
    await removeSnapshots(fixture.repository, [snapshot]);
    const swept = await runSweep(fixture.repository, optionsOf());
    assert.deepEqual([swept.removedPacks, swept.repackedPacks], [2, 0]);
    assert.deepEqual(await packNames(fixture), [...known].sort());
    const index = await BlobIndex.load(fixture.repository, null);
    assert.deepEqual(
      pack.blobs.map((blob) => index.place(index.entryOf(blob)).offset),
      pack.blobs.map(({ offset }) => offset),
    );
    resticCheck(fixture.path);
    await runIndexRepair(fixture.repository, await planIndexRepair(fixture.repository));
    await assertSound(fixture);
  });

  test("a sweep that rewrites index files keeps all different listings of a pack", async (t) => {
    const fixture = await repositoryFor(t);
    const { pack, rest } = await sixFiles(fixture);
    const known = new Set([pack, ...rest].map(({ id }) => objectIdOf(id)));
    const { snapshot } = await new TestArchive(fixture).save(randomFiles(2, 3000, "dead"));
    const [one, two] = (await listings(fixture)).filter(({ id }) => !known.has(objectIdOf(id)));
    await indexAs(fixture, [
      [one!, part(pack, 0, 2)],
      [two!, ...rest, pack],
    ]);
    await removeSnapshots(fixture.repository, [snapshot]);
    const swept = await runSweep(fixture.repository, optionsOf());
    assert.deepEqual([swept.removedPacks, swept.replacedIndexes], [2, 2]);
    const counts = (await listings(fixture))
      .filter(({ id }) => objectIdOf(id) === objectIdOf(pack.id))
      .map(({ blobs }) => blobs.length);
    assert.deepEqual(counts.sort(), [2, 6]);
    assert.deepEqual((await planIndexRepair(fixture.repository)).add.length, 1);
    resticCheck(fixture.path);
    if (resticInstalled) restic(fixture.path, ["prune"]);
    await runIndexRepair(fixture.repository, await planIndexRepair(fixture.repository));
    await assertSound(fixture);
  });

  test("a sweep keeps a pack with unlisted blobs while needed blobs are missing", async (t) => {
    const fixture = await repositoryFor(t);
    const { repository } = fixture;
    const files = randomFiles(6, 3000, "k");
    const archive = new TestArchive(fixture);
    const all = await archive.save(files);
    await archive.save(Object.fromEntries(Object.entries(files).slice(3)));
    await removeSnapshots(repository, [all.snapshot]);
    const listed = await listings(fixture);
    const pack = listed.find(({ blobs }) => blobs.length === 6)!;
    await indexAs(fixture, [[...listed.filter((each) => each !== pack), part(pack, 0, 3)]]);
    const swept = await runSweep(repository, { ...optionsOf(), mayLackData: true });
    assert.deepEqual([swept.lacking.length, swept.removedPacks], [3, 1]);
    await runIndexRepair(repository, await planIndexRepair(repository));
    await assertSound(fixture);
  });

  for (const order of ["first", "last"])
    test(`a sweep keeps a pack if only one of its two listings, read ${order}, has no needed blobs`, async (t) => {
      const fixture = await repositoryFor(t);
      const dead = randomFiles(1, 50_000, "a");
      const keep = randomFiles(2, 3000, "k");
      const archive = new TestArchive(fixture);
      const both = await archive.save({ ...dead, ...keep });
      await archive.save(keep);
      await removeSnapshots(fixture.repository, [both.snapshot]);
      const all = await listings(fixture);
      const pack = all.find(({ blobs }) => blobs.length === 3)!;
      const rest = all.filter((each) => each !== pack);
      const parts = [[part(pack, 0, 1)], [pack, ...rest]];
      await indexAs(fixture, order === "first" ? parts : parts.toReversed());
      const swept = await runSweep(fixture.repository, optionsOf());
      assert.ok((await packNames(fixture)).includes(objectIdOf(pack.id)));
      assert.ok(swept.unusedBytes >= 50_000, String(swept.unusedBytes));
      resticCheck(fixture.path);
      // Once it is listed once, what nothing needs of it goes.
      await runIndexRepair(fixture.repository, await planIndexRepair(fixture.repository));
      assert.equal((await runSweep(fixture.repository, optionsOf())).repackedPacks, 1);
      await assertSound(fixture);
    });
});

describe("compaction", () => {
  test("a compaction keeps a pack that contains unlisted blobs", async (t) => {
    const fixture = await repositoryFor(t);
    const { repository } = fixture;
    const { pack, rest } = await sixFiles(fixture);
    await new TestArchive(fixture).save(randomFiles(1, 100, "more"));
    const known = new Set([pack, ...rest].map(({ id }) => objectIdOf(id)));
    const more = (await listings(fixture)).filter(({ id }) => !known.has(objectIdOf(id)));
    await indexAs(fixture, [[part(pack, 0, 3)], ...[...rest, ...more].map((each) => [each])]);
    const index = await BlobIndex.load(repository, null);
    const result = await compact(repository, index, { trigger: 4, budgetMs: Infinity });
    assert.deepEqual([result.mergedIndexes, result.mergedPacks], [4, 4]);
    assert.ok((await packNames(fixture)).includes(objectIdOf(pack.id)));
    await runIndexRepair(repository, await planIndexRepair(repository));
    await assertSound(fixture);
  });

  for (const order of ["first", "last"])
    test(`a compaction keeps both listings of a pack if the partial listing is read ${order}`, async (t) => {
      const fixture = await repositoryFor(t);
      const { repository } = fixture;
      const { pack, rest, files } = await sixFiles(fixture);
      await new TestArchive(fixture).save({ ...files, ...randomFiles(1, 100, "more") });
      const known = new Set([pack, ...rest].map(({ id }) => objectIdOf(id)));
      const more = (await listings(fixture)).filter(({ id }) => !known.has(objectIdOf(id)));
      const parts = [[part(pack, 0, 1)], ...[...rest, ...more].map((each) => [each]), [pack]];
      await indexAs(fixture, order === "first" ? parts : parts.toReversed());
      const index = await BlobIndex.load(repository, null);
      const result = await compact(repository, index, { trigger: 4, budgetMs: Infinity });
      assert.deepEqual([result.mergedIndexes, result.mergedPacks > 0], [parts.length, true]);
      const all = (await listings(fixture)).filter(({ id }) => objectIdOf(id) === objectIdOf(pack.id));
      assert.deepEqual(all.map(({ blobs }) => blobs.length).sort(), [1, 6]);
      const fresh = await BlobIndex.load(repository, null);
      assert.equal(index.listings(pack.id), fresh.listings(pack.id));
      for (const blob of pack.blobs) assert.ok(fresh.entryOf(blob) >= 0);
      resticCheck(fixture.path);
      await runIndexRepair(repository, await planIndexRepair(repository));
      await assertSound(fixture);
    });
});
