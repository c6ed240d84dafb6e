import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { loopFileSystem } from "../../test/fixtures/loop-file-system.ts";
import { cairnLibrary } from "../../test/fixtures/work.ts";
import { hasCode, testFolder } from "../keep/testing-folder.ts";

test("status probes the engines again if the folder's file system or the kernel changed", async (t) => {
  const { client } = await testFolder(t, { file: "x" });
  const file = path.join(client.controlDirectory, "cache/engines-main.json");
  const told = JSON.parse(fs.readFileSync(file, "utf8"));
  assert.equal(told.file_systems.length, 2);
  const old = { engine: "copy", chosen: true, reason: "as it was there" };
  fs.writeFileSync(file, JSON.stringify({ ...told, reasons: [old] }));
  assert.deepEqual((await client.status()).engine_reasons, [old]);
  for (const other of [
    { file_systems: ["another", told.file_systems[1]] },
    { facts: ["2.6.32", ...told.facts.slice(1)] },
    // As earlier versions wrote it.
    { facts: undefined },
  ]) {
    fs.writeFileSync(file, JSON.stringify({ ...told, reasons: [old], ...other }));
    assert.deepEqual((await client.status()).engine_reasons, told.reasons);
    assert.deepEqual(JSON.parse(fs.readFileSync(file, "utf8")), told);
  }
});

test("status probes the engines again if the folder became a subvolume or the mount options changed", async (t) => {
  const volume = loopFileSystem(t, "btrfs");
  if (volume === null) return;
  const folder = path.join(volume.root, "ws");
  fs.mkdirSync(folder);
  const client = await (await cairnLibrary()).init(folder);
  const snapshots = async (): Promise<string> => (await client.status()).engine_reasons[0]!.reason;
  assert.match(await snapshots(), /only subvolumes/);
  fs.rmdirSync(folder);
  execFileSync("btrfs", ["-q", "subvolume", "create", folder]);
  assert.match(await snapshots(), /works here \(tried\)/);
  const file = path.join(client.controlDirectory, "cache/engines-main.json");
  const { mtimeMs } = fs.statSync(file);
  await snapshots();
  assert.equal(fs.statSync(file).mtimeMs, mtimeMs, "nothing is asked again");
  execFileSync("mount", ["-o", "remount,user_subvol_rm_allowed", volume.root]);
  await snapshots();
  assert.match(fs.readFileSync(file, "utf8"), /user_subvol_rm_allowed/);
});

test("setEngine fails with no_space, not unsupported, if the disk is too full to try the engine", async (t) => {
  const volume = loopFileSystem(t, "xfs");
  if (volume === null) return;
  const folder = path.join(volume.root, "ws");
  fs.mkdirSync(folder);
  const control = path.join(volume.root, "control");
  const client = await (await cairnLibrary()).init(folder, { controlDirectory: control });
  const fill = fs.openSync(path.join(volume.root, "fill"), "w");
  for (const bytes of [1 << 20, 512]) {
    try {
      for (;;) fs.writeSync(fill, Buffer.alloc(bytes));
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, "ENOSPC");
    }
  }
  await assert.rejects(client.setEngine("reflink-copy"), hasCode("no_space"));
  fs.closeSync(fill);
  fs.rmSync(path.join(volume.root, "fill"));
  assert.equal((await client.setEngine("reflink-copy")).engine, "reflink-copy");
});

test("validateEngine fails with not_found if the path does not exist", async (t) => {
  const { library, root } = await testFolder(t);
  await assert.rejects(library.validateEngine(path.join(root, "absent"), "reflink-copy"), hasCode("not_found"));
});
