import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { hasCode, type TestFolder, testFolder } from "../keep/testing-folder.ts";

/** A folder with the states `one` and `two` of a file. The file has the state `two`. */
async function twoStates(t: Parameters<typeof testFolder>[0]): Promise<TestFolder & { one: string }> {
  const of = await testFolder(t, { a: "one" });
  const { save_point_id: one } = await of.client.save();
  writeFileSync(join(of.folder, "a"), "two");
  await of.client.save();
  return { ...of, one };
}

const read = ({ folder }: TestFolder): string => readFileSync(join(folder, "a"), "utf8");

test("an operation that a redo brought back is undone by its own undo point, and by that of the redo", async (t) => {
  const of = await twoStates(t);
  const { client } = of;
  const { undo_id: own } = await client.restore({ target: of.one });
  const { undo_id: ofUndo } = await client.undo({ expected: own! });
  await client.redo({ expected: ofUndo! });
  assert.equal(read(of), "one");
  const { operations, undo } = await client.operations();
  assert.equal(operations.find(({ at }) => at === undo)?.undo_id, own);
  assert.equal((await client.planUndo({ expected: own! })).entries.length, 1);
  await client.undo({ expected: own! });
  assert.equal(read(of), "two");
  await client.redo({ expected: own! });
  const { undo_id: other } = await client.restore({ target: "head", paths: ["a"] });
  assert.equal(other, null, "the folder has this state already");
  writeFileSync(join(of.folder, "a"), "three");
  await client.restore({ target: of.one });
  await assert.rejects(client.undo({ expected: own! }), hasCode("conflict"));
});

test("each undone operation is listed as undone, also after a further operation, until a redo brings it back", async (t) => {
  const of = await twoStates(t);
  const { client } = of;
  const marks = async (): Promise<string[]> =>
    (await client.operations()).operations.map(({ kind, is_undone: isUndone }) => (isUndone ? `${kind} undone` : kind));
  await client.restore({ target: of.one });
  await client.undo();
  assert.deepEqual(await marks(), ["undo", "restore undone"]);
  await client.redo();
  assert.deepEqual(await marks(), ["redo", "undo", "restore"]);
  await client.undo();
  writeFileSync(join(of.folder, "a"), "three");
  await client.restore({ target: of.one });
  assert.deepEqual(await marks(), ["restore", "undo", "redo", "undo", "restore undone"]);
  await client.undo();
  assert.deepEqual(await marks(), ["undo", "restore undone", "undo", "redo", "undo", "restore undone"]);
});

test("an undo of several operations has one plan of all, and does what it lists or nothing", async (t) => {
  const of = await testFolder(t, { a: "1", "sub/b": "1", mine: "1" });
  const { client, folder, write } = of;
  const { save_point_id: one } = await client.save();
  for (const path of ["a", "sub/b", "mine", "new"]) write(path, "2");
  await client.save();
  const { undo_id: first } = await client.restore({ target: one, paths: ["a"] });
  await client.restore({ target: one, paths: ["sub", "mine"], keepPresent: true });
  const { undo_id: newest } = await client.restore({ target: one });
  write("mine", "3");
  const wanted = { count: 3, expected: newest! };
  const plan = await client.planUndo(wanted);
  assert.deepEqual(
    plan.entries.map(({ action, path }) => `${action} ${path}`),
    ["update a", "keep mine", "create new", "update sub/b"],
  );
  assert.equal(plan.restored_to, first);
  write("a", "4");
  await assert.rejects(client.undo({ ...wanted, plan: plan.id }), hasCode("stale_plan"));
  assert.deepEqual(
    [readFileSync(join(folder, "sub/b"), "utf8"), (await client.operations()).operations.length],
    ["1", 3],
  );
  write("a", "1");
  const again = await client.planUndo(wanted);
  const { changes, left_out: left } = await client.undo({ ...wanted, plan: again.id });
  assert.deepEqual([changes?.created, changes?.updated, left.map(({ path }) => path)], [1, 2, ["mine"]]);
  assert.deepEqual(
    ["a", "sub/b", "mine", "new"].map((path) => readFileSync(join(folder, path), "utf8")),
    ["2", "2", "3", "2"],
  );
  assert.equal((await client.operations()).undo, null);
  await assert.rejects(client.planRedo({ count: 4 }), hasCode("nothing_to_undo"));
  await client.redo({ count: 3 });
  assert.equal(readFileSync(join(folder, "a"), "utf8"), "1");
});
