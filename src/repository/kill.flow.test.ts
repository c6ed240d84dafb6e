import { strict as assert } from "node:assert";
import { spawnSync } from "node:child_process";
import { cpSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { someOf } from "../../test/crash/rounds.ts";
import { BlobIndex } from "./index/blob-index.ts";
import { compact } from "./care/compact.ts";
import { removeDeadLocks } from "./locks.ts";
import { removeSnapshots, runSweep } from "./care/remove.ts";
import { Repository } from "./repository.ts";
import { LocalStorage } from "./storage/local.ts";
import {
  assertComplete,
  type Fixture,
  PASSWORD,
  randomFiles,
  resticCheck,
  TestArchive,
  repositoryFor,
} from "./testing-archive.ts";

/** Runs `sweep` or `compact` on a store in a process of its own, which a failpoint may kill. */
const CHILD = `
import { openSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import os from "node:os";
const { uptime } = os;
/** For the verb "look:HOURS": so many hours have passed since the first look. */
let hours = 0;
os.uptime = () => uptime() + hours * 3600;
syncBuiltinESMExports();
const at = (name) => import(new URL(name, ${JSON.stringify(import.meta.url)}).href);
const { LocalStorage } = await at("./storage/local.ts");
const { Repository } = await at("./repository.ts");
const { BlobReader } = await at("./packs/blob-reader.ts");
const { BlobIndex } = await at("./index/blob-index.ts");
const { compact } = await at("./care/compact.ts");
const { removeSnapshots, runSweep } = await at("./care/remove.ts");
const [verb, folder, ...ids] = process.argv.slice(1);
const storage = new LocalStorage(folder + "/store", { temporaryDirectory: folder + "/tmp" });
const repository = await Repository.open(storage, { password: ${JSON.stringify(PASSWORD)} });
const cachePath = folder + "/cache";
if (verb === "repair") {
  const { planIndexRepair, runIndexRepair } = await at("./care/repair.ts");
  const damagedPacks = new Set(ids);
  await runIndexRepair(repository, await planIndexRepair(repository, { damagedPacks }), { damagedPacks });
} else if (verb === "compact") {
  await compact(repository, await BlobIndex.load(repository, cachePath), { trigger: 5, budgetMs: 5000 });
} else if (verb.startsWith("look:")) {
  hours = Number(verb.slice(5));
  const now = storage.now.bind(storage);
  storage.now = async () => (await now()) + hours * 3_600_000;
  await runSweep(repository, { cachePath, roots: async () => [], looks: "twice" });
} else {
  const reader = new BlobReader({ keys: repository.keys, openPack: (name) => openSync(storage.localPath("data", name), "r") });
  await removeSnapshots(repository, ids);
  await runSweep(repository, { cachePath, roots: async () => [], readTree: (place) => reader.view(place) });
}
`;

function run(failpoint: string, args: readonly string[]): { killed: boolean; stderr: string } {
  const child = spawnSync(process.execPath, ["--input-type=module", "-e", CHILD, "--", ...args], {
    encoding: "utf8",
    env: { ...process.env, CAIRN_FAILPOINT: failpoint },
  });
  assert.ok(child.signal === "SIGKILL" || child.status === 0, child.stderr);
  return { killed: child.signal === "SIGKILL", stderr: child.stderr };
}

function namesIn(stderr: string): string[] {
  return [...stderr.matchAll(/^failpoint (\S+)$/gm)].map((match) => match[1]!);
}

/** Copies the store of a fixture into a new folder in it, and returns the folder. */
function copyOf(fixture: Fixture, name: string): string {
  const folder = join(fixture.folder, name);
  cpSync(fixture.path, join(folder, "store"), { recursive: true, preserveTimestamps: true });
  cpSync(fixture.temporary, join(folder, "tmp"), { recursive: true });
  return folder;
}

/** The store of `folder` as another process would find it. */
async function opened(folder: string): Promise<Fixture> {
  const path = join(folder, "store");
  const temporary = join(folder, "tmp");
  const storage = new LocalStorage(path, { temporaryDirectory: temporary });
  return { folder, path, temporary, storage, repository: await Repository.open(storage, { password: PASSWORD }) };
}

async function assertWhole(fixture: Fixture): Promise<void> {
  await removeDeadLocks(fixture.repository);
  assert.deepEqual(await fixture.storage.list("locks"), []);
  await assertComplete(fixture.repository, join(fixture.folder, "cache"));
  resticCheck(fixture.path);
}

function sizes(fixture: Fixture): Record<string, number> {
  const count = (folder: string): number =>
    readdirSync(join(fixture.path, folder), { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
      .length;
  return {
    data: count("data"),
    index: count("index"),
    snapshots: count("snapshots"),
    locks: count("locks"),
    tmp: readdirSync(fixture.temporary).length,
  };
}

/** Saves three snapshots and a pack in no index. Returns the ids of two snapshots whose content is partly needed. */
async function saveNeedless(fixture: Fixture): Promise<string[]> {
  const archive = new TestArchive(fixture);
  const keep = randomFiles(3, 2000, "k");
  const a = await archive.save({ ...keep, ...randomFiles(3, 2000, "a") });
  const b = await archive.save(randomFiles(3, 2000, "b"));
  await archive.save(keep);
  await fixture.storage.save("data", "ef".repeat(32), Buffer.alloc(70));
  return [a.snapshot, b.snapshot];
}

describe("killed at any step", () => {
  test("a sweep killed at any step loses no needed content, and the next sweep completes the work", async (t) => {
    const fixture = await repositoryFor(t);
    const ids = await saveNeedless(fixture);
    const copy = (name: string): string => copyOf(fixture, name);
    const args = (folder: string): string[] => ["sweep", folder, ...ids];
    const clean = copy("clean");
    const names = namesIn(run("list", args(clean)).stderr);
    const wanted = sizes(await opened(clean));
    assert.ok(names.length >= 11, names.join(" "));
    for (const [at, name] of someOf([...names, "sweep.pack-removed:2"]).entries()) {
      const folder = copy(`kill-${at}`);
      assert.equal(run(name, args(folder)).killed, true, name);
      await assertWhole(await opened(folder));
      // A second kill, at the same place, during what finishes the first.
      run(name, args(folder));
      const again = await opened(folder);
      await removeSnapshots(again.repository, ids);
      await runSweep(again.repository, { cachePath: null, roots: async () => [] });
      assert.deepEqual(sizes(again), wanted, name);
      await assertWhole(again);
      rmSync(folder, { recursive: true });
    }
  });

  for (const hours of [0, 24])
    test(`a sweep that looks twice, killed at any step of the look after ${hours} hours, loses no needed content`, async (t) => {
      const fixture = await repositoryFor(t);
      const ids = await saveNeedless(fixture);
      await removeSnapshots(fixture.repository, ids);
      if (hours > 0) run("", ["look:0", fixture.folder]);
      const copy = (name: string): string => copyOf(fixture, name);
      const args = (folder: string): string[] => [`look:${hours}`, folder];
      const clean = copy("clean");
      const names = namesIn(run("list", args(clean)).stderr);
      const last = hours === 0 ? "sweep.marked" : "sweep.marks-removed";
      assert.ok(names.includes(last), names.join(" "));
      run("", ["look:48", clean]);
      const wanted = sizes(await opened(clean));
      for (const [at, name] of someOf(names).entries()) {
        const folder = copy(`kill-${at}`);
        assert.equal(run(name, args(folder)).killed, true, name);
        await assertWhole(await opened(folder));
        // A second kill, at the same place, during what finishes the first.
        run(name, args(folder));
        for (const later of [24, 48]) run("", [`look:${later}`, folder]);
        const again = await opened(folder);
        await assertWhole(again);
        assert.deepEqual({ ...sizes(again), index: 0 }, { ...wanted, index: 0 }, name);
        rmSync(folder, { recursive: true });
      }
    });

  test("a repair killed at any step can be repeated until the repository has no damage", async (t) => {
    const fixture = await repositoryFor(t);
    const archive = new TestArchive(fixture);
    const lost = randomFiles(3, 900, "n");
    await archive.save(lost);
    await archive.save(randomFiles(3, 300, "m"));
    const [big] = (await fixture.storage.list("data")).sort((a, b) => b.size - a.size);
    const bytes = readFileSync(fixture.storage.localPath("data", big!.name));
    bytes[50]! ^= 1;
    writeFileSync(fixture.storage.localPath("data", big!.name), bytes);
    const copy = (name: string): string => copyOf(fixture, name);
    const names = namesIn(run("list", ["repair", copy("clean"), big!.name]).stderr);
    assert.ok(names.length >= 4, names.join(" "));
    for (const [at, name] of someOf(names).entries()) {
      const folder = copy(`kill-${at}`);
      assert.equal(run(name, ["repair", folder, big!.name]).killed, true, name);
      for (let i = 0; i < 2; i++) assert.equal(run("", ["repair", folder, big!.name]).killed, false);
      const again = await opened(folder);
      await new TestArchive(again).save(lost);
      await assertWhole(again);
      rmSync(folder, { recursive: true });
    }
  });

  test("a compaction killed at any step loses no content, and later compactions complete the work", async (t) => {
    const fixture = await repositoryFor(t);
    const saves = Array.from({ length: 6 }, (_, i) => randomFiles(2, 300, `n${i}`));
    // Killed before its index was written, and repeated.
    await new TestArchive(fixture).save(saves[0]!);
    for (const kind of ["index", "snapshots"] as const)
      for (const { name } of await fixture.storage.list(kind)) await fixture.storage.remove(kind, name);
    const archive = new TestArchive(fixture);
    for (const files of saves) await archive.save(files);
    const copy = (name: string): string => copyOf(fixture, name);
    const clean = copy("clean");
    const names = namesIn(run("list", ["compact", clean]).stderr);
    const wanted = sizes(await opened(clean));
    assert.deepEqual(wanted, { data: 2, index: 1, snapshots: 6, locks: 0, tmp: 0 });
    for (const [at, name] of someOf([...names, "compact.pack-removed:3", "compact.index-removed:2"]).entries()) {
      const folder = copy(`kill-${at}`);
      assert.equal(run(name, ["compact", folder]).killed, true, name);
      await assertWhole(await opened(folder));
      run(name, ["compact", folder]);
      const again = await opened(folder);
      // Later saves bring the trigger; what was left before is gone after it.
      const more = new TestArchive(again);
      for (let i = 0; i < 5; i++) await more.save(randomFiles(1, 300, `m${i}`));
      for (let i = 0; i < 3; i++)
        await compact(again.repository, await BlobIndex.load(again.repository, join(folder, "cache")), {
          trigger: 3,
          budgetMs: 5000,
        });
      assert.ok(sizes(again)["data"]! <= 6, `${name}: ${JSON.stringify(sizes(again))}`);
      assert.equal(sizes(again)["tmp"], 0);
      await assertWhole(again);
      rmSync(folder, { recursive: true });
    }
  });
});
