import assert from "node:assert/strict";
import { chmodSync, existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { CairnError } from "../errors.ts";
import { hasCode, type TestFolder, testFolder } from "../keep/testing-folder.ts";

const FILES = { a: "one", "b/c": "two" };

async function deleted(t: Parameters<typeof testFolder>[0]): Promise<TestFolder & { id: string }> {
  const of = await testFolder(t, FILES);
  chmodSync(of.folder, 0o750);
  const { save_point_id: id } = await of.client.save();
  rmSync(of.folder, { recursive: true });
  return { ...of, id };
}

function assertBack({ folder }: TestFolder): void {
  for (const [name, text] of Object.entries(FILES)) assert.equal(readFileSync(join(folder, name), "utf8"), text);
  assert.equal(lstatSync(folder).mode & 0o7777, 0o750);
}

test("a restore creates a deleted folder again, and an undo removes its entries", async (t) => {
  const of = await deleted(t);
  const restored = await of.client.restore({ target: "head" });
  assert.deepEqual(restored.changes, { created: 3, updated: 0, deleted: 0, metadata: 0 });
  assertBack(of);
  assert.equal((await of.client.status()).clean, true);
  const warnings: string[] = [];
  await of.client.save({ onWarning: (message) => warnings.push(message) });
  assert.deepEqual(warnings, [], "it is recorded as the workspace's folder");
  await of.client.undo();
  assert.deepEqual(readdirSync(of.folder), []);
  await of.client.redo();
  assertBack(of);
  rmSync(of.folder, { recursive: true });
  await of.client.restoreLatest();
  assertBack(of);
  const { healthy, findings } = await of.client.doctor();
  assert.deepEqual([healthy, findings], [true, []]);
  rmSync(of.folder, { recursive: true });
  await of.client.undo();
  assert.deepEqual(readdirSync(of.folder), [], "an undo gives back what was there before the restore");
});

test("a restore into a folder that another program made records that folder", async (t) => {
  const { client, folder } = await deleted(t);
  mkdirSync(`${folder} takes the free inode`);
  mkdirSync(folder);
  await client.restore({ target: "head" });
  const warnings: string[] = [];
  await client.save({ onWarning: (message) => warnings.push(message) });
  assert.deepEqual(warnings, []);
});

test("a restore of some paths creates a deleted folder again with the mode of the point", async (t) => {
  const of = await deleted(t);
  const { changes } = await of.client.restore({ target: "head", paths: ["b"] });
  assert.equal(changes?.created, 2);
  assert.deepEqual(readdirSync(of.folder), ["b"]);
  assert.equal(lstatSync(of.folder).mode & 0o7777, 0o750);
});

test("planRestore for a deleted folder lists all entries and creates nothing", async (t) => {
  const { client, folder } = await deleted(t);
  const { entries } = await client.planRestore({ target: "head" });
  assert.deepEqual(
    entries.map(({ path, action }) => `${action} ${path}`),
    ["create a", "create b", "create b/c"],
  );
  assert.ok(!existsSync(folder));
  assert.deepEqual(readdirSync(join(client.controlDirectory, "tmp")), []);
});

test("calls that need a deleted folder fail with its path and the ways to restore it", async (t) => {
  const { client, folder, root } = await deleted(t);
  const calls: Record<string, () => Promise<unknown>> = {
    status: async () => client.status(),
    diff: async () => client.diff("head"),
    save: async () => client.save(),
    run: async () => client.run(["true"]),
    undo: async () => client.undo(),
    planUndo: async () => client.planUndo(),
  };
  for (const [name, call] of Object.entries(calls))
    await assert.rejects(call, (error: CairnError) => {
      assert.deepEqual([error.code, error.message], ["not_found", `the folder ${folder} is not there`], name);
      assert.match(error.hint ?? "", /restore latest.*cairn relocate/, name);
      return true;
    });
  await assert.rejects(client.restore({ target: "head", to: folder }), (error: CairnError) => {
    assert.match(error.hint ?? "", /without --to, into the workspace's folder/);
    return error.code === "refused";
  });
  await client.restore({ target: "head", to: join(root, "copy") });
  assert.ok(!existsSync(folder));
});

test("a failed restore does not create the deleted folder", async (t) => {
  const { client, folder } = await deleted(t);
  await assert.rejects(client.restore({ target: "head", paths: ["nothing"] }), hasCode("not_found"));
  assert.ok(!existsSync(folder));
  assert.deepEqual(readdirSync(join(client.controlDirectory, "workspaces/main/journal")), []);
});

test("a restore does not create a deleted folder while its parent folder is missing", async (t) => {
  const { library, root } = await testFolder(t);
  const folder = join(root, "above/work");
  mkdirSync(folder, { recursive: true });
  const client = await library.init(folder);
  await client.save();
  rmSync(join(root, "above"), { recursive: true });
  await assert.rejects(client.restore({ target: "head" }), (error: CairnError) => {
    assert.match(error.hint ?? "", /mkdir -p/);
    return error.code === "refused";
  });
  mkdirSync(join(root, "above"));
  await client.restore({ target: "head" });
  assert.deepEqual(readdirSync(folder), []);
});

test("a restore creates the deleted main folder of a self-contained workspace that was moved", async (t) => {
  const { library, root } = await testFolder(t);
  const client = await library.init(join(root, "self"), { selfContained: true });
  await client.save();
  await client.close();
  renameSync(join(root, "self"), join(root, "moved"));
  rmSync(join(root, "moved/main"), { recursive: true });
  await (await library.open(join(root, "moved"))).restore({ target: "head" });
  assert.deepEqual(readdirSync(join(root, "moved")).toSorted(), [".cairn", "main"]);
});
