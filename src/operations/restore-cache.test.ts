import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { statCacheTree } from "../fs/stat-cache.ts";
import type { Client } from "./contract.ts";
import { testFolder } from "./testing-folder.ts";

/** Content of a point, as its descriptor has it. */
function treeOf(client: Client, id: string): string {
  const points = path.join(client.controlDirectory, "workspaces/main/points");
  for (const name of fs.readdirSync(points)) {
    const descriptor = JSON.parse(fs.readFileSync(path.join(points, name, "descriptor.json"), "utf8"));
    if (descriptor.save_point_id === id) return descriptor.content.tree;
  }
  return "";
}

test("the stat cache is of the folder as it is, with that of the way back aside, when the folder goes back and forth", async (t) => {
  const { client, folder, write } = await testFolder(t, { "dir/a": "one", b: "b" });
  const { save_point_id: first } = await client.save();
  const cache = path.join(client.controlDirectory, "cache");
  const main = path.join(
    cache,
    fs.readdirSync(cache).find((name) => /^stat-[0-9a-f]+$/.test(name))!,
  );
  const assertCaches = (now: string, aside: string, when: string): void => {
    for (const [file, id] of [[main, now] as const, [`${main}-aside`, aside] as const])
      assert.equal(Buffer.from(statCacheTree(file) ?? []).toString("hex"), treeOf(client, id), `${when}: ${file}`);
  };
  const isOneThen = (text: string): void => assert.equal(fs.readFileSync(path.join(folder, "dir/a"), "utf8"), text);

  write("dir/a", "two");
  const { undo_id: second } = await client.restore({ target: first });
  assertCaches(first, second!, "back");
  write("dir/a", "three");
  const { undo_id: third } = await client.restore({ target: first });
  assertCaches(first, third!, "back again");
  isOneThen("one");
  assert.equal((await client.status()).clean, true);
  await client.undo();
  assertCaches(third!, first, "undone");
  isOneThen("three");
  assert.equal((await client.status()).clean, true);
  await client.undo();
  isOneThen("one");
  assertCaches(first, third!, "redone");

  // A part says nothing of the whole, and a save is of the present.
  write("b", "B");
  const { undo_id: fourth } = await client.restore({ target: first, paths: ["b"] });
  assertCaches(fourth!, third!, "in part");
  write("b", "BB");
  const { save_point_id: fifth } = await client.save();
  assertCaches(fifth, third!, "saved");
  assert.deepEqual((await client.verifyAll()).problems, []);
});
