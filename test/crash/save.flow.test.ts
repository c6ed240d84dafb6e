import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { walkDigests } from "../../src/workspace/store/testing-walk.ts";
import { cairn, cairnOk } from "../fixtures/command.ts";
import { assertFolder, readFolder } from "../fixtures/folder-state.ts";
import { makeFirst, makeSecond } from "../fixtures/two-states.ts";
import { assertNoLeftovers, clientOf, newFolder, resticCheck } from "../fixtures/work.ts";
import { killAt, passesOf, someOf } from "./rounds.ts";

/** First saves, and what is left of later ones; those are killed step by step by the engines' contract. */

test("a save that reuses the packs of a killed save can be killed and repeated, too", async () => {
  const killed = (name: string): string => {
    const folder = newFolder(name);
    makeFirst(folder);
    for (let n = 0; n < 2; n++) fs.writeFileSync(path.join(folder, `big-${n}`), randomBytes(9 << 20));
    // Its packs are complete and in no repository.
    assert.ok(cairn(["save", folder], { failpoint: "stage.scanned" }).killed);
    return folder;
  };
  const names = passesOf(["save", killed("listed-again")]);
  for (const name of ["abandoned.moved", "abandoned.taken", "storage.files-flushed", "storage.file-moved"])
    assert.ok(names.includes(name), names.join(" "));
  assert.ok(!names.includes("stage.pack-complete"), "all of it was stored");
  const first = names.indexOf("abandoned.moved");
  const last = names.indexOf("stage.snapshot-written");
  const passes = someOf(names.map((_name, i) => i + 1).slice(first, last + 1), 4);
  for (const pass of passes) {
    const folder = killed("again");
    const before = readFolder(folder);
    const where = `killed again at ${killAt(["save", folder], pass)}`;
    const client = await clientOf(folder);
    resticCheck(client, where, ["--no-lock"]);
    const saved = cairnOk(["save", folder]).data["save_point"] as { payload_root_hash: string };
    assert.equal(saved.payload_root_hash, walkDigests(folder).state, where);
    assertFolder(folder, before, where);
    assertNoLeftovers(client, folder, where);
    assert.deepEqual((await client.verifyAll()).problems, [], where);
    resticCheck(client, where);
  }
});

test("save removes old unfinished cache files that a killed save left", async () => {
  const folder = newFolder("cache");
  makeFirst(folder);
  const client = await clientOf(folder);
  for (const name of ["stat-cache-staged", "index-cache-staged"]) cairn(["save", folder], { failpoint: name });
  const cache = path.join(client.controlDirectory, "cache");
  const left = fs.readdirSync(cache).filter((name) => /\.\d/.test(name));
  assert.ok(left.length >= 1);
  for (const name of left) fs.utimesSync(path.join(cache, name), 1e9, 1e9);
  await client.save();
  assert.deepEqual(
    fs.readdirSync(cache).filter((name) => /\.\d/.test(name)),
    [],
  );
});

test("a point becomes head if its save is killed after the commit", async () => {
  const folder = newFolder("head");
  makeFirst(folder);
  const client = await clientOf(folder);
  await client.save();
  makeSecond(folder);
  const killed = cairn(["save", folder, "-m", "killed"], { failpoint: "point-committed" });
  assert.ok(killed.killed);
  const { save_points } = await client.history(undefined, 0, { all: true });
  assert.equal(save_points[0]!.message, "killed");
  const next = await client.save({ message: "next" });
  assert.equal(next.unchanged, true);
  assert.equal(next.parent_id, save_points[0]!.save_point_id);
  assert.equal(next.restored_from, null);
});
