import assert from "node:assert/strict";
import fs from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { inspect } from "../verbs/folders/inspect.run.ts";
import { hasCode, testFolder, type TestFolder } from "../keep/testing-folder.ts";

interface Scene extends TestFolder {
  /** of two points, oldest first */
  ids: string[];
}

async function twoPoints(t: TestContext): Promise<Scene> {
  const scene = await testFolder(t, { a: "one" });
  const { save_point_id: first } = await scene.client.save();
  scene.write("a", "two");
  const { save_point_id: second } = await scene.client.save();
  return { ...scene, ids: [first, second] };
}

/** What neither a repair nor a release with all points touches. */
async function isLeftAlone({ client, ids }: Scene, file: string): Promise<void> {
  const before = fs.readFileSync(file, "utf8");
  const { findings } = await client.doctor({ repair: true });
  assert.deepEqual(
    findings.map(({ kind, severity, repair }) => [kind, severity, repair]),
    [["unreadable", "warning", undefined]],
  );
  assert.ok(findings[0]!.detail.includes(file), findings[0]!.detail);
  await assert.rejects(client.release({ deletePoints: true }), hasCode("newer_version"));
  await assert.rejects(inspect(file, {}), hasCode("newer_version"));
  assert.equal(fs.readFileSync(file, "utf8"), before);
  const { save_points: points } = await client.history(undefined, 0, { all: true });
  assert.deepEqual(points.map(({ save_point_id: id }) => id).toReversed(), ids);
}

test("cleanup fails with newer_version if a view's record has a newer version", async (t) => {
  const scene = await twoPoints(t);
  const { client, ids } = scene;
  const { view_id: view } = await client.view(ids[0]!);
  const file = join(client.controlDirectory, "views", `${view}.json`);
  fs.writeFileSync(file, JSON.stringify({ format: "cairn.view", version: 2, points: [ids[0]] }));
  await assert.rejects(client.runCleanup({ only: [ids[0]!] }), hasCode("newer_version"));
  await assert.rejects(client.previewCleanup({ retention: { keepLast: 1 } }), hasCode("newer_version"));
  await assert.rejects(client.closeView(view), hasCode("newer_version"));
  await isLeftAlone(scene, file);
  assert.ok(fs.existsSync(join(client.controlDirectory, "views", view, "a")));
});

test("save and doctor keep an unfinished folder of a newer version with its record", async (t) => {
  const scene = await twoPoints(t);
  const { client, root, write } = scene;
  const staging = join(root, "out.cairn-partial-0123456789abcdef");
  fs.mkdirSync(staging);
  fs.mkdirSync(join(client.controlDirectory, "partial"));
  const file = join(client.controlDirectory, "partial/0123456789abcdef.json");
  fs.writeFileSync(
    file,
    JSON.stringify({ format: "cairn.unfinished", version: 2, work: "new-folder", folder: staging }),
  );
  write("a", "three");
  await client.save();
  const { save_points: points } = await client.history(undefined, 0, { all: true });
  await isLeftAlone({ ...scene, ids: points.map(({ save_point_id: id }) => id).toReversed() }, file);
  assert.ok(fs.existsSync(staging));
});
