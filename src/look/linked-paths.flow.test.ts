import assert from "node:assert/strict";
import { linkSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { hasCode, testFolder } from "../keep/testing-folder.ts";

/** Restores of chosen paths: of one that is nowhere, and of a hard link of what was not asked for. */

test("a restore of a path that does not exist anywhere makes no undo point", async (t) => {
  const { client, write } = await testFolder(t, { a: "one" });
  const { save_point_id: first } = await client.save();
  write("a", "two");
  for (const target of [first, "head"])
    await assert.rejects(client.restore({ target, paths: ["a", "mistyped"] }), hasCode("not_found"));
  assert.equal((await client.history(undefined, 0, { all: true })).save_points.length, 1);
  await client.restore({ target: first, paths: ["a"] });
  assert.equal((await client.history(undefined, 0, { all: true })).save_points.length, 2);
});

test("a restore lists a file as unlinked if its other hard links were changed, and undo links them again", async (t) => {
  const { client, folder, write } = await testFolder(t);
  const at = (name: string): string => join(folder, name);
  const inodes = (...names: string[]): number => new Set(names.map((name) => statSync(at(name)).ino)).size;
  write("a", "one");
  for (const name of ["b", "c"]) linkSync(at("a"), at(name));
  const { save_point_id: first } = await client.save();
  // Through any of its names.
  writeFileSync(at("b"), "two");
  const restored = await client.restore({ target: first, paths: ["a"] });
  assert.deepEqual([restored.unlinked, restored.left_out], [[{ path: "a" }], []]);
  assert.deepEqual(
    ["a", "b"].map((name) => readFileSync(at(name), "utf8")),
    ["one", "two"],
  );
  const undone = await client.undo();
  assert.deepEqual([undone.unlinked, undone.left_out, inodes("a", "b", "c")], [[], [], 1]);
  assert.equal(readFileSync(at("a"), "utf8"), "two");
  const whole = await client.restore({ target: first });
  assert.deepEqual([whole.unlinked, inodes("a", "b", "c")], [[], 1]);
});

test("a restore of some paths links a file to its unchanged other names, but not to changed ones", async (t) => {
  const { client, folder, write } = await testFolder(t);
  const at = (name: string): string => join(folder, name);
  write("a", "one");
  for (const name of ["b", "c"]) linkSync(at("a"), at(name));
  const { save_point_id: first } = await client.save();
  rmSync(at("a"));
  const linked = await client.restore({ target: first, paths: ["a"] });
  assert.deepEqual([linked.unlinked, linked.left_out, statSync(at("a")).nlink], [[], [], 3]);
  for (const name of ["a", "c"]) rmSync(at(name));
  writeFileSync(at("c"), "another");
  const partly = await client.restore({ target: first, paths: ["a"] });
  assert.deepEqual([partly.unlinked, statSync(at("a")).ino], [[{ path: "a" }], statSync(at("b")).ino]);
  assert.equal(readFileSync(at("c"), "utf8"), "another");
});
