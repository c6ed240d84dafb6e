import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { HistoryResult } from "../../src/contract/looking.ts";
import type { SaveResult } from "../../src/contract/points.ts";
import { toCairnError } from "../../src/errors.ts";
import { TestDaemon } from "../fixtures/daemon.ts";
import { LONG } from "../fixtures/long.ts";
import { type LoopFileSystem, loopFileSystem } from "../fixtures/loop-file-system.ts";
import { chosenPasses, random } from "./rounds.ts";

/** The daemon when it is killed: every registration and every point that a caller was told of is there afterwards. */

/** So often each of some clients saves before a kill, in the workspaces that were made last; these are looked at after it. */
const SAVES = 4;
const RECENT = 4;

/** What callers were told of: points by folder. A folder without a workspace is not in it. */
type Told = Map<string, Set<string>>;

function newFolder(volume: LoopFileSystem, name: string): string {
  const folder = path.join(volume.root, name);
  execFileSync("btrfs", ["-q", "subvolume", "create", folder]);
  return folder;
}

async function register(daemon: TestDaemon, folder: string, told: Told): Promise<void> {
  await daemon.call("register", { path: folder });
  if (!told.has(folder)) told.set(folder, new Set());
}

async function save(daemon: TestDaemon, folder: string, told: Told): Promise<void> {
  fs.writeFileSync(path.join(folder, "a"), String(told.get(folder)!.size));
  const { save_point_id: id } = (await daemon.call("save", { workspace: folder })) as SaveResult;
  told.get(folder)!.add(id);
}

/** A call of a daemon that was killed has no answer; any other failure is one of the test. */
async function unlessKilled(work: Promise<unknown>): Promise<void> {
  try {
    await work;
  } catch (error) {
    const { code, message } = toCairnError(error);
    const isKilled =
      code === "io" || (code === "busy" && message.includes("accepts no more connections")) || code === "no_daemon";
    assert.ok(isKilled, `${code}: ${message}`);
  }
}

async function assertAllThere(daemon: TestDaemon, told: Told, where: string): Promise<void> {
  const { workspaces } = await daemon.reconciled();
  const served = new Map(workspaces.map((each) => [each.path, each.health]));
  assert.equal(served.size, workspaces.length, `${where}: none is listed twice`);
  for (const folder of told.keys()) assert.equal(served.get(folder), "ok", `${where}: ${folder}`);
  await assertPointsThere(daemon, told, where);
}

async function assertPointsThere(daemon: TestDaemon, told: Told, where: string): Promise<void> {
  for (const [folder, points] of told) {
    const { save_points: found, damaged } = (await daemon.call("history", { workspace: folder })) as HistoryResult;
    const ids = new Set<string>(found.map(({ save_point_id: id }) => id));
    assert.deepEqual([[...points].filter((id) => !ids.has(id)), damaged], [[], []], `${where}: ${folder}`);
  }
}

test("a daemon, if killed at any step, keeps all workspaces and points that it confirmed, and lists none twice", async (t) => {
  const volume = loopFileSystem(t, "btrfs");
  if (volume === null) return;
  const daemon = new TestDaemon(t);
  daemon.configure(`[backend]\ndata_root = "${volume.root}"\n`);
  let number = 0;
  const told: Told = new Map();
  const work = async (): Promise<void> => {
    const [kept, goes] = [newFolder(volume, `kept-${number}`), newFolder(volume, `goes-${number++}`)];
    for (const folder of [kept, goes]) await register(daemon, folder, told);
    await save(daemon, kept, told);
    await save(daemon, goes, told);
    // From here on it may be served or not.
    told.delete(goes);
    await daemon.call("release", { workspace: goes });
    await save(daemon, kept, told);
  };
  await daemon.start({ CAIRN_FAILPOINT: "trace" });
  await work();
  await daemon.stop();
  const names = [...daemon.log.matchAll(/^failpoint (\S+)$/gm)].map(([, name]) => name!);
  for (const name of [
    "daemon-state.previous-kept",
    "daemon-state.saved",
    "daemon.decided",
    "daemon.kept",
    "daemon.released",
  ])
    assert.ok(names.includes(name), `${name} in ${names.join(" ")}`);
  const own = [...new Set(names)]
    .filter((name) => name.startsWith("daemon"))
    .map((name) => ({ CAIRN_FAILPOINT: name }));
  const sampled = chosenPasses(names).map((pass) => ({ CAIRN_FAILPOINT: `#${pass}` }));
  for (const env of [...own, ...sampled]) {
    const where = `killed at ${env.CAIRN_FAILPOINT}`;
    const started = await daemon.start(env).then(
      () => true,
      () => false,
    );
    if (started) await unlessKilled(work());
    await daemon.kill();
    await daemon.start();
    await assertAllThere(daemon, told, where);
    await daemon.stop();
  }
});

test("a daemon, if killed again and again, keeps all workspaces and points that it confirmed", async (t) => {
  const volume = loopFileSystem(t, "btrfs", { size: 2 ** 31 });
  if (volume === null) return;
  const daemon = new TestDaemon(t);
  daemon.configure(`[backend]\ndata_root = "${volume.root}"\n`);
  const told: Told = new Map();
  const kills = LONG ? 1000 : 12;
  await daemon.start();
  await register(daemon, newFolder(volume, "first"), told);
  await daemon.stop();
  for (let kill = 0; kill < kills; kill++) {
    await daemon.start();
    const clients = Array.from({ length: 4 }, async (_, client) => {
      if (client === 0 && kill % 8 === 0) await register(daemon, newFolder(volume, `ws-${kill}`), told);
      const known = [...told.keys()].slice(-RECENT);
      for (let i = 0; i < SAVES; i++) await save(daemon, known[(kill + client * 7 + i) % known.length]!, told);
    }).map(unlessKilled);
    await sleep(random() * 300);
    await daemon.kill();
    await Promise.all(clients);
    await daemon.start();
    const served = new Set((await daemon.status()).workspaces.map((each) => each.path));
    assert.deepEqual(
      [...told.keys()].filter((folder) => !served.has(folder)),
      [],
      `kill ${kill}`,
    );
    await assertPointsThere(daemon, new Map([...told].slice(-RECENT)), `kill ${kill}`);
    await daemon.kill();
  }
  await daemon.start();
  await assertAllThere(daemon, told, "in the end");
  const points = [...told.values()].reduce((sum, each) => sum + each.size, 0);
  t.diagnostic(`${kills} kills, ${told.size} workspaces, ${points} points`);
});
