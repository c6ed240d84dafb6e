import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { hasCode, testFolder } from "../keep/testing-folder.ts";

const ENTRY = fileURLToPath(new URL("../cli/program/entry.ts", import.meta.url));

/** What the command says. */
function cairn(words: readonly string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [ENTRY, ...words], { encoding: "utf8" });
}

test("the next save of a released folder finds the workspace and the points again", async (t) => {
  const { client, library, folder, root } = await testFolder(t, { a: "one" });
  const point = await client.save({ message: "kept" });
  const { workspace, points_deleted } = await client.release();
  assert.deepEqual([workspace.path, points_deleted], [folder, 0]);
  assert.equal(readFileSync(join(folder, "a"), "utf8"), "one");
  await assert.rejects(library.open(folder), hasCode("not_a_workspace"));
  assert.deepEqual(await library.listWorkspaces(), []);
  assert.deepEqual(readdirSync(join(root, "state", "cairn", "workspaces")), []);
  const again = await library.init(folder);
  assert.deepEqual([again.created, again.repoId, again.workspace.id], [true, client.repoId, client.workspace.id]);
  const { save_points, head } = await again.history();
  assert.deepEqual([save_points.map(({ message }) => message), head], [["kept"], point.save_point_id]);
});

test("a save finds the points of a released folder in the control directory that was given to its first save", async (t) => {
  const { library, root } = await testFolder(t);
  const folder = join(root, "other");
  mkdirSync(folder);
  const controlDirectory = join(root, "control");
  const client = await library.init(folder, { controlDirectory });
  await client.save();
  await client.release();
  const again = await library.init(folder);
  assert.equal(again.workspace.id, client.workspace.id);
  assert.equal((await again.history()).save_points.length, 1);
});

test("release --delete-points works on a folder that is already released", async (t) => {
  const { client, library, folder, root } = await testFolder(t, { a: "one" });
  await assert.rejects(library.open(join(root), { released: true }), hasCode("not_a_workspace"));
  await client.save();
  assert.equal((await client.release()).points_kept, 1);
  const again = cairn(["release", folder, "--delete-points"]);
  assert.equal(again.status, 0, again.stderr);
  assert.equal(existsSync(client.controlDirectory), false);
  // Elsewhere it is found by the note of the first release.
  const controlDirectory = join(root, "control");
  await (await library.init(folder, { controlDirectory })).save();
  assert.equal(cairn(["release", folder]).status, 0);
  assert.equal(cairn(["release", folder, "--delete-points"]).status, 0);
  assert.deepEqual([existsSync(controlDirectory), readFileSync(join(folder, "a"), "utf8")], [false, "one"]);
  const self = join(root, "self");
  await (await library.init(self, { selfContained: true })).release();
  assert.equal(cairn(["release", self, "--delete-points"]).status, 0);
  assert.deepEqual(readdirSync(self), ["main"]);
});

test("release of a workspace without save points does not say that points stay", async (t) => {
  const { client, folder } = await testFolder(t, { a: "one" });
  assert.match(cairn(["release", folder]).stdout, /it had no save points$/m);
  assert.equal(existsSync(client.controlDirectory), true);
});

test("openOrInit opens a released self-contained workspace again with its points", async (t) => {
  const { library, root } = await testFolder(t);
  const path = join(root, "self");
  const client = await library.init(path, { selfContained: true });
  writeFileSync(join(path, "main", "a"), "one");
  await client.save();
  await client.release();
  await assert.rejects(library.open(path), hasCode("not_a_workspace"));
  const again = await library.openOrInit(path, { selfContained: true });
  assert.equal((await again.history()).save_points.length, 1);
  const { points_deleted, bytes_freed } = await again.release({ deletePoints: true });
  assert.deepEqual([points_deleted, bytes_freed > 0], [1, true]);
  assert.deepEqual(readdirSync(path), ["main"]);
  assert.equal(readFileSync(join(path, "main", "a"), "utf8"), "one");
});

test("release with deletePoints removes the control directory only with its last workspace", async (t) => {
  const { client, library, folder, root } = await testFolder(t, { a: "one" });
  const other = join(root, "other");
  mkdirSync(other);
  writeFileSync(join(other, "b"), "two");
  const second = await library.init(other, { controlDirectory: client.controlDirectory });
  await client.save();
  const kept = await second.save();
  const { points_deleted, bytes_freed } = await client.release({ deletePoints: true });
  assert.deepEqual([points_deleted, bytes_freed > 0], [1, true]);
  assert.ok(existsSync(client.controlDirectory));
  const { snapshots } = { snapshots: readdirSync(join(client.controlDirectory, "store", "snapshots")) };
  assert.equal(snapshots.length, 1);
  rmSync(join(other, "b"));
  await second.restore({ target: kept.save_point_id });
  assert.equal(readFileSync(join(other, "b"), "utf8"), "two");
  await second.release({ deletePoints: true });
  assert.ok(!existsSync(client.controlDirectory));
  assert.ok(existsSync(join(folder, "a")) && existsSync(join(other, "b")));
});

test("release with deletePoints keeps a store that has snapshots of other programs", async (t) => {
  const { client } = await testFolder(t, { a: "one" });
  await client.save();
  const { repository, password_file } = await client.store();
  const words = ["-r", repository, "--password-file", password_file, "--no-cache", "backup", "/etc/hostname"];
  const restic = spawnSync("restic", words, { encoding: "utf8" });
  if (restic.error !== undefined || restic.status !== 0) {
    t.skip("restic is not installed");
    return;
  }
  const warnings: string[] = [];
  await client.release({ deletePoints: true, onWarning: (message) => warnings.push(message) });
  assert.match(warnings.join(), /did not make/);
  assert.equal(readdirSync(join(repository, "snapshots")).length, 1);
});

test("a release that cannot rename the control directory leaves the folder registered with its points", async (t) => {
  const { client, folder, library } = await testFolder(t, { a: "one" });
  const { save_point_id: id } = await client.save();
  const control = client.controlDirectory;
  if (spawnSync("mount", ["--bind", control, control]).status !== 0) return t.skip("no mounting");
  const unmount = (): unknown => spawnSync("umount", [control], { stdio: "ignore" });
  t.after(unmount);
  assert.match(cairn(["release", folder, "--delete-points"]).stderr, /a file system is mounted at/);
  assert.equal((await (await library.open(folder)).latestSavePoint())?.save_point_id, id);
  unmount();
  const { points_deleted } = await (await library.open(folder)).release({ deletePoints: true });
  assert.deepEqual([points_deleted, existsSync(control)], [1, false]);
});

test("release forgets a folder whose control directory is missing", async (t) => {
  const { client, library, folder } = await testFolder(t);
  await assert.rejects(library.forget(folder), hasCode("conflict"));
  rmSync(client.controlDirectory, { recursive: true });
  await assert.rejects(library.open(folder), hasCode("not_found"));
  assert.match((await library.listWorkspaces())[0]?.problem ?? "", /not there/);
  assert.equal(cairn(["release", folder]).status, 0);
  assert.equal(await library.forget(folder), false);
  assert.equal((await library.openOrInit(folder)).created, true);
});
