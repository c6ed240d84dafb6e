import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { after, test } from "node:test";
import { cairn, cairnOk } from "../fixtures/command.ts";
import { assertFolder, readFolder } from "../fixtures/folder-state.ts";
import { loopFileSystem } from "../fixtures/loop-file-system.ts";
import { makeFirst, makeSecond, makeUnsaved } from "../fixtures/two-states.ts";
import { assertNoLeftovers, cairnLibrary } from "../fixtures/work.ts";
import { killAt, oneOf, passesOf, random, SEED } from "./rounds.ts";

let failed = true;
after(() => {
  if (failed) process.stderr.write(`exchange.test.ts: repeat with CAIRN_TEST_SEED=${SEED}\n`);
});

function subvolumes(root: string): string[] {
  const listed = execFileSync("btrfs", ["subvolume", "list", root], { encoding: "utf8" });
  return listed.split("\n").flatMap((line) => / path (.*)$/.exec(line)?.[1] ?? []);
}

test("an exchange that is killed at any step, also a second time, ends in the old or the new tree, and nothing is lost", async (t) => {
  const volume = loopFileSystem(t, "btrfs");
  if (volume === null) return void (failed = false);
  const folder = path.join(volume.root, "ws");
  execFileSync("btrfs", ["-q", "subvolume", "create", folder]);
  makeFirst(folder);
  const client = await (await cairnLibrary()).adopt(folder, { engineType: "btrfs-snapshot" });
  const first = readFolder(folder);
  await client.save();
  makeSecond(folder);
  makeUnsaved(folder);
  const unsaved = readFolder(folder);
  cairnOk(["-C", folder, "restore", "head"]);
  assertFolder(folder, first, "restored");
  /** The folder as it was never saved, and a restore to a point of the first state that still holds its tree. */
  const prepare = async (): Promise<string[]> => {
    const { save_point_id: id } = await client.save();
    await client.seal();
    cairnOk(["-C", folder, "undo", "--method", "exchange"]);
    assertFolder(folder, unsaved, "prepared");
    return ["-C", folder, "restore", id, "--method", "exchange"];
  };
  const names = passesOf(await prepare());
  assert.ok(names.includes("exchange.exchanged"), names.join(" "));
  for (let pass = 1; pass <= names.length; pass++) {
    assertFolder(folder, first, `before pass ${pass}`);
    const restore = await prepare();
    const { save_points: old } = await client.history();
    const killed = [killAt(restore, pass)];
    const now = oneOf(folder, { first, unsaved }, `killed at ${killed[0]}`);
    // Whatever comes next finishes or takes back; killed too, the one after it does.
    if (pass % 2 === 0) killed.push(killAt(["-C", folder, "save"], 1 + Math.floor(random() * 6)));
    const where = `killed at ${killed.join(" and ")}`;
    await client.save({ message: "next" });
    assertFolder(folder, now === "first" ? first : unsaved, where);
    const { save_points: points, damaged } = await client.history();
    assert.deepEqual(damaged, [], where);
    const known = new Set(old.map(({ save_point_id: each }) => each));
    const fresh = points.filter(({ save_point_id: each }) => !known.has(each));
    const undo = fresh.filter(({ cause }) => cause.kind === "restore");
    assert.equal(undo.length, now === "first" ? 1 : 0, `${where}: the undo point`);
    await client.seal();
    assertNoLeftovers(client, folder, where);
    const held: string[] = subvolumes(volume.root).filter((each) => !/\/points\/\d{10}\/tree$/.test(each));
    assert.deepEqual(held, ["ws"], where);
    if (now !== "first") cairnOk(restore);
    assertFolder(folder, first, where);
  }
  assert.deepEqual((await client.verifyAll()).problems, []);
  assert.equal(fs.existsSync(path.join(client.controlDirectory, "partial")), false);
  failed = false;
});

test("an exchange that was killed is finished when the engine has been changed since by another workspace", async (t) => {
  const volume = loopFileSystem(t, "btrfs");
  if (volume === null) return;
  const folder = path.join(volume.root, "ws");
  execFileSync("btrfs", ["-q", "subvolume", "create", folder]);
  makeFirst(folder);
  const client = await (await cairnLibrary()).adopt(folder, { engineType: "btrfs-snapshot" });
  const first = readFolder(folder);
  const { save_point_id: id } = await client.save();
  await client.seal();
  const fork = path.join(volume.root, "fork");
  await client.fork("head", fork);
  makeUnsaved(folder);
  const unsaved = readFolder(folder);
  const args = ["-C", folder, "restore", id, "--method", "exchange"];
  assert.ok(cairn(args, { failpoint: "exchange.exchanged" }).killed);
  assertFolder(folder, first, "exchanged");
  cairnOk(["engine", "set", "copy", fork]);
  cairnOk(["-C", folder, "undo"]);
  assertFolder(folder, unsaved, "undone");
  assert.deepEqual((await client.verifyAll()).problems, []);
  assert.deepEqual(fs.readdirSync(path.join(client.controlDirectory, "tmp")), []);
});
