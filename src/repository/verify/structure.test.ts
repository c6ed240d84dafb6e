import { strict as assert } from "node:assert";
import { randomBytes } from "node:crypto";
import { closeSync, openSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { CairnError } from "../../errors.ts";
import { objectIdOf, type ObjectId } from "../../ids.ts";
import { BlobIndex } from "../index/blob-index.ts";
import type { CheckProblem, Structure } from "./structure.ts";
import { explain } from "./damage.ts";
import { NearPacks, type PackFiles } from "../read/near-packs.ts";
import { PackVerifier } from "./pack-verifier.ts";
import { planIndexRepair, runIndexRepair } from "../care/repair.ts";
import { loadPackHeader } from "../packs/pack-read.ts";
import { Repository } from "../repository.ts";
import { FaultyStorage } from "../storage/testing-faulty.ts";
import type { Storage } from "../storage/storage.ts";
import {
  checkStructure,
  PASSWORD,
  randomFiles,
  restic,
  resticCheck,
  resticInstalled,
  sha,
  TestArchive,
  repositoryFor,
  writeTree,
  type Fixture,
} from "../testing-archive.ts";

async function check(fixture: Fixture): Promise<Structure> {
  const report = await checkStructure(fixture.repository, { packs: new NearPacks(fixture.storage, "") });
  await explain(report);
  report.blobs.close();
  return report;
}

/** Nothing is wrong with what the index says, and nothing with the packs, read whole. */
async function assertSound(fixture: Fixture): Promise<void> {
  assert.deepEqual((await check(fixture)).problems, []);
  await assertWholePacks(fixture);
}

async function assertWholePacks({ repository, storage }: Fixture): Promise<void> {
  const verifier = new PackVerifier(repository.keys);
  for (const { name, size } of await storage.list("data")) {
    const descriptor = openSync(storage.localPath("data", name), "r");
    assert.deepEqual(verifier.verify({ descriptor, size, id: Buffer.from(name, "hex") }), []);
    closeSync(descriptor);
  }
}

function kinds(report: { problems: readonly CheckProblem[] }): string[] {
  return [...new Set(report.problems.map((problem) => problem.kind))].sort();
}

function paths(problem: CheckProblem | undefined): string[] {
  return (problem?.consequences ?? []).map((c) => Buffer.from(c.path).toString()).sort();
}

/** The largest data pack and a copy of its bytes. */
async function largest(fixture: Fixture): Promise<{ name: string; path: string; bytes: Buffer }> {
  const [file] = (await fixture.storage.list("data")).sort((a, b) => b.size - a.size);
  const path = fixture.storage.localPath("data", file!.name);
  return { name: file!.name, path, bytes: readFileSync(path) };
}

describe("check", () => {
  test("a check finds no problems in a sound repository, also with restic's snapshots", async (t) => {
    const fixture = await repositoryFor(t);
    await new TestArchive(fixture).save(randomFiles(5, 2000));
    if (resticInstalled) {
      writeTree(join(fixture.folder, "data"), { ...randomFiles(5, 9000), text: Buffer.alloc(200_000, "text ") });
      restic(fixture.path, ["backup", "data"], fixture.folder);
    }
    await assertSound(fixture);
    assert.equal((await check(fixture)).roots.length, resticInstalled ? 2 : 1);
  });

  test("a check names a missing or truncated pack and the paths that need it", async (t) => {
    const fixture = await repositoryFor(t);
    const archive = new TestArchive(fixture);
    await archive.save(randomFiles(3, 5000, "a"));
    const b = await archive.save(randomFiles(3, 500, "b"));
    const pack = await largest(fixture);
    for (const [harm, kind] of [
      [() => rmSync(pack.path), "pack_missing"],
      [
        () => {
          writeFileSync(pack.path, pack.bytes);
          truncateSync(pack.path, 2000);
        },
        "pack_size",
      ],
    ] as const) {
      harm();
      const report = await check(fixture);
      assert.deepEqual(kinds(report), [kind]);
      assert.equal(report.problems[0]!.object, pack.name);
      assert.deepEqual(paths(report.problems[0]), ["folder/a0", "folder/a1", "folder/a2"]);
      assert.ok(!report.problems[0]!.consequences!.some((c) => c.root.includes(b.snapshot)));
    }
  });

  test("a check reports only the blobs beyond the end of a truncated pack as affected", async (t) => {
    const fixture = await repositoryFor(t);
    await new TestArchive(fixture).save(randomFiles(3, 5000, "a"));
    const pack = await largest(fixture);
    for (const [size, costs] of [
      [pack.bytes.length - 10, 0],
      [12_000, 1],
      [7000, 2],
    ] as const) {
      truncateSync(pack.path, size);
      const report = await check(fixture);
      assert.deepEqual(kinds(report), ["pack_size"]);
      assert.equal(paths(report.problems[0]).length, costs, `cut to ${size} bytes`);
      assert.deepEqual(
        report.packs.find(({ name }) => name === pack.name),
        { name: pack.name, size },
        "what is left of it is read",
      );
    }
  });

  test("a check names every snapshot that a missing pack affects, even if it does not list all paths", async (t) => {
    const fixture = await repositoryFor(t);
    const archive = new TestArchive(fixture);
    const many = randomFiles(1100, 400, "a");
    const one = { z: randomBytes(900_000) };
    const roots: string[] = [];
    const save = async (files: Record<string, Uint8Array>): Promise<number> =>
      roots.push(`snapshot ${(await archive.save(files)).snapshot}`);
    await save(many);
    const first = await largest(fixture);
    await save({ ...many, ...one });
    const second = await largest(fixture);
    await save({ ...many, ...one, other: randomBytes(9) });
    for (const { path } of [first, second]) rmSync(path);
    const costs = new Map<string, string[]>();
    for (const { object, consequences = [] } of (await check(fixture)).problems) {
      assert.ok(consequences.length <= 1000);
      costs.set(object, [...new Set(consequences.map(({ root }) => root))].sort());
    }
    assert.deepEqual(costs.get(first.name), roots.toSorted());
    assert.deepEqual(costs.get(second.name), roots.slice(1).sort());
  });

  test("a check reports damaged keys, snapshots and index files, and unindexed packs, all in one run", async (t) => {
    const fixture = await repositoryFor(t);
    const archive = new TestArchive(fixture);
    const a = await archive.save(randomFiles(2, 500, "a"));
    const [index] = await fixture.storage.list("index");
    await archive.save(randomFiles(2, 500, "b"));
    writeFileSync(join(fixture.path, "snapshots", a.snapshot), "x");
    writeFileSync(join(fixture.path, "keys", "ab".repeat(32)), "x");
    assert.deepEqual(kinds(await check(fixture)), ["key_damaged", "snapshot_damaged"]);
    await fixture.storage.save("data", "cd".repeat(32), Buffer.alloc(99));
    assert.deepEqual(kinds(await check(fixture)), ["key_damaged", "pack_unindexed", "snapshot_damaged"]);
    const [other] = (await fixture.storage.list("index")).filter((file) => file.name !== index!.name);
    writeFileSync(join(fixture.path, "index", other!.name), "x");
    const report = await check(fixture);
    assert.deepEqual(kinds(report), [
      "index_damaged",
      "key_damaged",
      "pack_unindexed",
      "snapshot_damaged",
      "tree_missing",
    ]);
    assert.equal(paths(report.problems.find((p) => p.kind === "tree_missing")).length, 1);
  });
});

test("a check throws the storage's error instead of reporting damage if the storage is unreachable", async (t) => {
  const fixture = await repositoryFor(t);
  await new TestArchive(fixture).save(randomFiles(2, 100));
  const away = new CairnError("io", "the line is dead");
  const failing = (error: CairnError): PackFiles => ({
    open: () => {
      throw error;
    },
  });
  await assert.rejects(checkStructure(fixture.repository, { packs: failing(away) }), (error) => error === away);
  const faulty = new FaultyStorage(fixture.storage, []);
  const repository = await Repository.open(faulty, { password: PASSWORD });
  faulty.arm({ operation: "load", kind: "keys", fault: "fail" });
  const packs = new NearPacks(fixture.storage, "");
  await assert.rejects(checkStructure(repository, { packs }), /a fault of the test/);
  const worn = new CairnError("io", "reading a pack: EIO", {
    cause: Object.assign(new Error("EIO"), { code: "EIO" }),
  });
  const { problems } = await checkStructure(fixture.repository, { packs: failing(worn) });
  assert.deepEqual(kinds({ problems }), ["tree_damaged"]);
});

describe("repair of the index", () => {
  test("a repair rebuilds lost index files from the packs", async (t) => {
    const fixture = await repositoryFor(t);
    const archive = new TestArchive(fixture);
    await archive.save(randomFiles(3, 1000, "a"));
    await archive.save(randomFiles(3, 1000, "b"));
    const [first, second] = await fixture.storage.list("index");
    rmSync(join(fixture.path, "index", first!.name));
    writeFileSync(join(fixture.path, "index", second!.name), "x");
    const plan = await planIndexRepair(fixture.repository);
    assert.equal(plan.add.length, 4);
    assert.deepEqual(plan.damagedIndexes, [second!.name]);
    await runIndexRepair(fixture.repository, plan);
    await assertSound(fixture);
    resticCheck(fixture.path);
    const nothing = await planIndexRepair(fixture.repository);
    assert.deepEqual([nothing.add, nothing.drop, nothing.damagedIndexes, nothing.rewrite], [[], [], [], []]);
  });

  test("planIndexRepair throws the error if the storage does not return a pack's header", async (t) => {
    const fixture = await repositoryFor(t);
    const archive = new TestArchive(fixture);
    await archive.save(randomFiles(3, 1000, "a"));
    for (const { name } of await fixture.storage.list("index")) rmSync(join(fixture.path, "index", name));
    const over = (load: Storage["load"]): Repository =>
      fixture.repository.over(Object.assign(new FaultyStorage(fixture.storage), { load }));
    const failingWith = (error: CairnError): Repository => over(async () => Promise.reject(error));
    for (const code of ["io", "busy", "interrupted", "permission"] as const)
      await assert.rejects(planIndexRepair(failingWith(new CairnError(code, "no answer"))), { code });
    // A disk that cannot read a sector any more answers for good.
    const sector = new CairnError("io", "bad sector", { cause: Object.assign(new Error(), { code: "EIO" }) });
    for (const error of [new CairnError("not_found", "gone"), sector])
      assert.equal((await planIndexRepair(failingWith(error))).unreadable.length, 2);
    assert.equal((await planIndexRepair(fixture.repository)).add.length, 2);
  });

  test("a repair removes index entries of lost packs, so that a save stores the content again", async (t) => {
    const fixture = await repositoryFor(t);
    const files = randomFiles(3, 5000, "a");
    await new TestArchive(fixture).save(files);
    const pack = await largest(fixture);
    rmSync(pack.path);
    const plan = await planIndexRepair(fixture.repository);
    assert.deepEqual(
      plan.drop.map((d) => d.name),
      [pack.name],
    );
    await runIndexRepair(fixture.repository, plan);
    assert.deepEqual(kinds(await check(fixture)), ["blob_missing"]);
    await new TestArchive(fixture).save(files);
    assert.deepEqual(kinds(await check(fixture)), []);
    resticCheck(fixture.path);
  });

  test("a repair names the blobs of a lost pack that no other pack contains", async (t) => {
    const fixture = await repositoryFor(t);
    const files = randomFiles(4, 5000, "a");
    await new TestArchive(fixture).save(files);
    const pack = await largest(fixture);
    const [index] = await fixture.storage.list("index");
    const place = fixture.storage.localPath("index", index!.name);
    const bytes = readFileSync(place);
    // Stored twice, by one who did not know of it.
    rmSync(place);
    const again = Object.fromEntries(Object.entries(files).slice(0, 2));
    await new TestArchive(fixture).save(again);
    writeFileSync(place, bytes);
    rmSync(pack.path);
    const result = await runIndexRepair(fixture.repository, await planIndexRepair(fixture.repository));
    const missing = (await check(fixture)).problems.map(({ kind, object }) => [kind, object]);
    assert.equal(result.lostBlobs.length, 2);
    assert.deepEqual(missing.toSorted(), result.lostBlobs.map((id) => ["blob_missing", id]).toSorted());
    const nothing = await runIndexRepair(fixture.repository, await planIndexRepair(fixture.repository));
    assert.deepEqual(nothing.lostBlobs, []);
  });

  test("a repair copies the readable blobs of a damaged pack, and names the lost blobs", async (t) => {
    const fixture = await repositoryFor(t);
    const files = randomFiles(4, 3000);
    await new TestArchive(fixture).save(files);
    const pack = await largest(fixture);
    pack.bytes[100]! ^= 1;
    writeFileSync(pack.path, pack.bytes);
    const damagedPacks = new Set([pack.name]);
    const plan = await planIndexRepair(fixture.repository, { damagedPacks });
    const result = await runIndexRepair(fixture.repository, plan, { damagedPacks });
    assert.equal(result.savedBlobs, 3);
    assert.equal(result.lostBlobs.length, 1);
    await assertWholePacks(fixture);
    const report = await check(fixture);
    assert.deepEqual(
      report.problems.map((p) => [p.kind, p.object]),
      [["blob_missing", result.lostBlobs[0]]],
    );
    await new TestArchive(fixture).save(files);
    await assertSound(fixture);
    resticCheck(fixture.path);
  });

  test("a repair keeps a damaged pack if it has no memory to check the blobs", async (t) => {
    const fixture = await repositoryFor(t);
    await new TestArchive(fixture).save(randomFiles(4, 3000));
    const pack = await largest(fixture);
    pack.bytes[100]! ^= 1;
    writeFileSync(pack.path, pack.bytes);
    const damagedPacks = new Set([pack.name]);
    const plan = await planIndexRepair(fixture.repository, { damagedPacks });
    const whole = globalThis.ArrayBuffer;
    t.after(() => (globalThis.ArrayBuffer = whole));
    globalThis.ArrayBuffer = class extends whole {
      constructor(size: number) {
        if (size >= 1024 * 1024) throw new RangeError("Array buffer allocation failed");
        super(size);
      }
    } as ArrayBufferConstructor;
    await assert.rejects(runIndexRepair(fixture.repository, plan, { damagedPacks }), {
      code: "io",
      message: /alloc/,
    });
    globalThis.ArrayBuffer = whole;
    assert.deepEqual(readFileSync(pack.path), pack.bytes);
    const result = await runIndexRepair(fixture.repository, plan, { damagedPacks });
    assert.deepEqual([result.savedBlobs, result.lostBlobs.length], [3, 1]);
  });

  test("loadPackHeader throws damaged if the storage returns fewer bytes than the pack has", async (t) => {
    const fixture = await repositoryFor(t);
    await new TestArchive(fixture).save(randomFiles(1, 100, "a"));
    const { name, bytes } = await largest(fixture);
    const fault = { operation: "load", kind: "data", fault: "truncate", times: 9 } as const;
    const storage = new FaultyStorage(fixture.storage, [fault]);
    await assert.rejects(loadPackHeader(fixture.repository.over(storage), name, bytes.length), { code: "damaged" });
  });

  test("a repair copies the readable blobs of a truncated pack", async (t) => {
    const fixture = await repositoryFor(t);
    const files = randomFiles(4, 3000);
    await new TestArchive(fixture).save(files);
    const pack = await largest(fixture);
    truncateSync(pack.path, 7000);
    const result = await runIndexRepair(fixture.repository, await planIndexRepair(fixture.repository));
    assert.deepEqual([result.savedBlobs, result.lostBlobs.length], [2, 2]);
    await assertWholePacks(fixture);
    assert.deepEqual(kinds(await check(fixture)), ["blob_missing"]);
    await new TestArchive(fixture).save(files);
    await assertSound(fixture);
    resticCheck(fixture.path);
  });

  test("a repair loses no blob if a single read of a pack returns wrong bytes", async (t) => {
    const fixture = await repositoryFor(t);
    await new TestArchive(fixture).save(randomFiles(4, 3000));
    const pack = await largest(fixture);
    const damagedPacks = new Set([pack.name]);
    const faulty = new FaultyStorage(fixture.storage);
    const repository = await Repository.open(faulty, { password: PASSWORD });
    const plan = await planIndexRepair(repository, { damagedPacks });
    faulty.arm({ operation: "load", kind: "data", fault: "flip" });
    const work = (): string => fixture.temporary;
    const result = await runIndexRepair(repository, plan, { damagedPacks, work });
    assert.deepEqual([result.savedBlobs, result.lostBlobs], [4, []]);
    await assertSound(fixture);
  });

  test("an index file with a bad sector is damaged, and a repair restores its entries", async (t) => {
    const fixture = await repositoryFor(t);
    await new TestArchive(fixture).save(randomFiles(2, 3000, "a"));
    const [index] = await fixture.storage.list("index");
    await new TestArchive(fixture).save(randomFiles(2, 3000, "b"));
    const faulty = new FaultyStorage(fixture.storage);
    const load = faulty.load.bind(faulty);
    const sector = new CairnError("io", "a sector", { cause: Object.assign(new Error(), { code: "EIO" }) });
    faulty.load = async (kind, name, ...more) =>
      name === index!.name ? Promise.reject(sector) : load(kind, name, ...more);
    const repository = fixture.repository.over(faulty);
    const { damaged } = await BlobIndex.load(repository, null);
    assert.deepEqual(
      damaged.map(({ name, error }) => [name, error.code]),
      [[index!.name, "damaged"]],
    );
    const plan = await planIndexRepair(repository);
    await runIndexRepair(repository, plan, { work: () => fixture.temporary });
    await assertSound(fixture);
  });

  test("a repair copies the readable blobs of a pack with a bad sector", async (t) => {
    const fixture = await repositoryFor(t);
    const files = randomFiles(4, 3000);
    await new TestArchive(fixture).save(files);
    const index = await BlobIndex.load(fixture.repository, null);
    const { pack, offset } = index.place(index.lookup(sha(files["f1"]!), 0));
    const damagedPacks = new Set([objectIdOf(pack)]);
    const faulty = new FaultyStorage(fixture.storage);
    const load = faulty.load.bind(faulty);
    faulty.load = async (kind, name, range, call) => {
      const from = range?.offset ?? 0;
      const isMet = from <= offset + 100 && offset + 100 < from + (range?.length ?? Infinity);
      if (!damagedPacks.has(name as ObjectId) || !isMet) return load(kind, name, range, call);
      throw new CairnError("io", "a sector", { cause: Object.assign(new Error(), { code: "EIO" }) });
    };
    const repository = fixture.repository.over(faulty);
    const plan = await planIndexRepair(repository, { damagedPacks });
    const result = await runIndexRepair(repository, plan, { damagedPacks, work: () => fixture.temporary });
    assert.deepEqual([result.savedBlobs, result.lostBlobs], [3, [objectIdOf(sha(files["f1"]!))]]);
  });

  test("a repair throws busy and changes no index if its lock was removed", async (t) => {
    const fixture = await repositoryFor(t);
    await new TestArchive(fixture).save(randomFiles(4, 3000));
    const { name } = await largest(fixture);
    const damagedPacks = new Set([name]);
    const faulty = new FaultyStorage(fixture.storage);
    const load = faulty.load.bind(faulty);
    faulty.load = async (kind, file, ...more) => {
      // Another program takes it for dead while this one sleeps.
      if (file === name)
        for (const lock of await fixture.storage.list("locks")) rmSync(join(fixture.path, "locks", lock.name));
      return load(kind, file, ...more);
    };
    const before = await fixture.storage.list("index");
    const plan = await planIndexRepair(fixture.repository, { damagedPacks });
    const work = (): string => fixture.temporary;
    const repairing = runIndexRepair(fixture.repository.over(faulty), plan, { damagedPacks, work });
    await assert.rejects(repairing, { code: "busy" });
    assert.deepEqual(await fixture.storage.list("index"), before);
    assert.equal(await fixture.storage.exists("data", name), true);
    // What was copied by then is in no index.
    assert.deepEqual(
      (await check(fixture)).problems.map(({ kind }) => kind),
      ["pack_unindexed"],
    );
  });

  test("planIndexRepair drops no pack of a backup that ends during the planning", async (t) => {
    const fixture = await repositoryFor(t);
    const { storage, repository } = fixture;
    await new TestArchive(fixture).save(randomFiles(2, 1000, "a"));
    const list = storage.list.bind(storage);
    let isFirst = true;
    storage.list = async (kind) => {
      const found = await list(kind);
      if (isFirst) {
        isFirst = false;
        await new TestArchive(fixture).save(randomFiles(2, 1000, "b"));
      }
      return found;
    };
    const plan = await planIndexRepair(repository);
    storage.list = list;
    assert.deepEqual(plan.drop, []);
  });

  test("runIndexRepair throws stale_plan if the index has changed since the plan", async (t) => {
    const fixture = await repositoryFor(t);
    const archive = new TestArchive(fixture);
    await archive.save(randomFiles(1, 100, "a"));
    const plan = await planIndexRepair(fixture.repository);
    await archive.save(randomFiles(1, 100, "b"));
    await assert.rejects(
      runIndexRepair(fixture.repository, plan),
      (error) => error instanceof CairnError && error.code === "stale_plan",
    );
  });

  test("runIndexRepair throws stale_plan if a pack of the plan is missing", async (t) => {
    const fixture = await repositoryFor(t);
    const { storage, repository } = fixture;
    await new TestArchive(fixture).save(randomFiles(2, 1000, "a"));
    for (const { name } of await storage.list("index")) await storage.remove("index", name);
    const plan = await planIndexRepair(repository);
    assert.ok(plan.add.length > 1);
    await storage.remove("data", plan.add[0]!.name);
    await assert.rejects(
      runIndexRepair(repository, plan),
      (error) => error instanceof CairnError && error.code === "stale_plan",
    );
    assert.deepEqual(await storage.list("index"), []);
  });
});
