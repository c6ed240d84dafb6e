import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import type { CairnError } from "../errors.ts";
import { acquireLock } from "../fs/lock.ts";
import { controlPaths, workspacePaths } from "../workspace/place/control-layout.ts";
import { moveWorkspace } from "../workspace/place/move-record.ts";
import { findWorkspace } from "../workspace/place/find-workspace.ts";
import type { Client } from "../contract/index.ts";
import { hasCode, testFolder, type TestFolder } from "../keep/testing-folder.ts";

/** A client that stays open while others change what it was opened for. */

const ENTRY = fileURLToPath(new URL("../cli/program/entry.ts", import.meta.url));

type Call = (client: Client) => Promise<unknown>;
const WRITERS: Record<string, Call> = {
  save: async (client) => client.save(),
  restore: async (client) => client.restore({ target: "head~1" }),
  restoreLatest: async (client) => client.restoreLatest(),
  undo: async (client) => client.undo(),
  release: async (client) => client.release(),
};
const READERS: Record<string, Call> = {
  status: async (client) => client.status(),
  diff: async (client) => client.diff("head"),
  history: async (client) => client.history(),
  read: async (client) => client.read(null, "a")[Symbol.asyncIterator]().next(),
};

function elsewhere(code: string, place: string): (error: unknown) => boolean {
  return (error) =>
    hasCode(code)(error) &&
    (error as CairnError).message.includes(place) &&
    (error as CairnError).details?.["relocated_to"] !== undefined;
}

interface Relocated extends TestFolder {
  moved: string;
}

async function relocated(t: TestContext): Promise<Relocated> {
  const scene = await testFolder(t, { a: "one" });
  await scene.client.save();
  scene.write("a", "two");
  await scene.client.save();
  const moved = join(scene.root, "moved");
  renameSync(scene.folder, moved);
  await scene.library.relocate(scene.folder, moved);
  return { ...scene, moved };
}

for (const [name, call] of Object.entries({ ...WRITERS, ...READERS }))
  test(`${name} fails and names the new path if the folder was relocated after the client was opened`, async (t) => {
    const { client, library, folder, moved } = await relocated(t);
    await assert.rejects(call(client), elsewhere("conflict", moved));
    assert.equal(existsSync(folder), false);
    const again = await library.open(moved);
    assert.deepEqual([again.workspace.id, (await again.history()).save_points.length], [client.workspace.id, 2]);
  });

test("a client opened before a relocate neither saves nor changes a new folder at the old path", async (t) => {
  const { client, library, folder, moved } = await relocated(t);
  mkdirSync(folder);
  writeFileSync(join(folder, "foreign"), "else");
  for (const call of Object.values(WRITERS)) await assert.rejects(call(client), elsewhere("conflict", moved));
  assert.deepEqual(readdirSync(folder), ["foreign"]);
  assert.equal((await (await library.open(moved)).history()).save_points.length, 2);
});

test("a restore that waits for the lock fails if the folder is relocated meanwhile", async (t) => {
  const { client, folder, root } = await testFolder(t, { a: "one" });
  await client.save();
  const control = controlPaths(client.controlDirectory);
  const lock = await acquireLock(workspacePaths(control, client.workspace.name).lock, { purpose: "test" });
  const waiting = assert.rejects(client.restore({ target: "head" }), elsewhere("conflict", join(root, "moved")));
  await setTimeout(100);
  const { workspace } = findWorkspace(folder)!;
  renameSync(folder, join(root, "moved"));
  moveWorkspace({ control, workspace }, Buffer.from(folder), Buffer.from(join(root, "moved")));
  lock.release();
  await waiting;
  assert.equal(existsSync(folder), false);
});

test("run saves nothing of another folder when its command relocates the workspace", async (t) => {
  const { client, library, folder, root } = await testFolder(t, { a: "one" });
  await client.save();
  const moved = join(root, "moved");
  const script = `cd / && mv "${folder}" "${moved}" && "${process.execPath}" "${ENTRY}" relocate "${folder}" "${moved}" && mkdir "${folder}" && echo foreign >"${folder}/x"`;
  const ran = spawnSync(process.execPath, [ENTRY, "-C", folder, "run", "--", "sh", "-c", script], { encoding: "utf8" });
  assert.notEqual(ran.status, 0, ran.stderr);
  assert.ok(ran.stderr.includes(`relocated to ${moved}`), ran.stderr);
  const again = await library.open(moved);
  const { save_points: points } = await again.history();
  assert.ok(points.every(({ cause }) => cause["phase"] !== "after"));
  await again.restore({ target: "latest" });
  assert.deepEqual(readdirSync(moved), ["a"]);
});

test("a client of a moved self-contained workspace does not change a new workspace at the old path", async (t) => {
  const { library, root } = await testFolder(t);
  const [place, moved] = [join(root, "place"), join(root, "moved")];
  const client = await library.init(place, { selfContained: true, engineType: "copy" });
  writeFileSync(join(place, "main/a"), "one");
  await client.save();
  renameSync(place, moved);
  for (const call of Object.values({ ...WRITERS, ...READERS }))
    await assert.rejects(call(client), hasCode("not_found"));
  assert.equal(existsSync(place), false);
  const other = await library.init(place, { selfContained: true, engineType: "copy" });
  writeFileSync(join(place, "main/b"), "other");
  await other.save();
  for (const call of Object.values({ ...WRITERS, ...READERS })) await assert.rejects(call(client), hasCode("conflict"));
  await assert.rejects(client.setPolicy({ quotaBytes: 5 }), hasCode("conflict"));
  await assert.rejects(client.save({ workspaceName: "another" }), hasCode("conflict"));
  assert.deepEqual(readdirSync(join(place, "main")), ["b"]);
  assert.deepEqual([(await other.policy()).quota_bytes, (await other.history()).save_points.length], [null, 1]);
  // Which notes where it lies.
  await library.open(moved);
  await assert.rejects(client.save(), elsewhere("conflict", join(moved, "main")));
});

test("a client of a released folder saves nothing until the folder is a workspace again", async (t) => {
  const { client, library, folder } = await testFolder(t, { a: "one" });
  await client.save();
  await (await library.open(folder)).release();
  await assert.rejects(client.save(), hasCode("not_a_workspace"));
  await library.init(folder);
  assert.equal((await client.save()).unchanged, true);
  await (await library.open(folder)).release({ deletePoints: true });
  await assert.rejects(client.save(), hasCode("not_found"));
  await library.init(folder);
  await assert.rejects(client.save(), hasCode("not_found"));
});

test("an open client warns once if another folder replaced its folder", async (t) => {
  const { client, folder, root, write } = await testFolder(t, { a: "one" });
  await client.save();
  renameSync(folder, join(root, "aside"));
  write("a", "one");
  const warnings: string[] = [];
  for (let count = 0; count < 2; count++) await client.save({ onWarning: (message) => warnings.push(message) });
  assert.equal(warnings.length, 1);
  assert.match(warnings[0]!, /is not the folder that was saved before/);
});

test("an open client uses the engine that another process has set", async (t) => {
  const { client } = await testFolder(t, { a: "one" });
  const file = join(client.controlDirectory, "cairn.json");
  const record = JSON.parse(readFileSync(file, "utf8")) as Record<string, unknown>;
  writeFileSync(file, JSON.stringify({ ...record, engine: "reflink-copy" }));
  assert.deepEqual([client.engineType, client.workspace.engine], ["reflink-copy", "reflink-copy"]);
});
