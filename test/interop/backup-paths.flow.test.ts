import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import type { PathsBackupResult } from "../../src/contract/index.ts";
import { buildCommand, cairn, SCRATCH } from "../fixtures/command.ts";
import { differencesOf, readFolder } from "../fixtures/folder-state.ts";
import { backup, newRepository, noRestic, restic, resticSnapshots, tryBackup } from "../fixtures/repository.ts";
import { makeFirst } from "../fixtures/two-states.ts";
import { newFolder } from "../fixtures/work.ts";

/** Several folders and files as one snapshot. */

interface Scene {
  place: Awaited<ReturnType<typeof newRepository>>;
  one: string;
  other: string;
  file: string;
}

async function scene(name: string): Promise<Scene> {
  const [one, other, beside] = [newFolder(`${name}-one`), newFolder(`${name}-other`), newFolder(`${name}-beside`)];
  makeFirst(one);
  fs.mkdirSync(path.join(other, "deep"));
  fs.writeFileSync(path.join(other, "deep/file"), "deep\n");
  const file = path.join(beside, "a [file]*");
  fs.writeFileSync(file, "alone\n");
  fs.linkSync(file, path.join(beside, "its other name"));
  return { place: await newRepository(`${name}-to`), one, other, file };
}

let targets = 0;

function restored(at: Scene, ...args: string[]): string {
  const target = path.join(SCRATCH, `paths-back-${targets++}`);
  backup(at.place, "restore", "latest", "--to", target, "--prove", "disk", ...args);
  return target;
}

test("backup create of several folders and a file makes one snapshot with full paths, and no save point", async () => {
  const at = await scene("several");
  const { place, one, other, file } = at;
  const made = backup(place, "create", other, one, file).data as unknown as PathsBackupResult;
  assert.deepEqual(made.snapshot!.paths, [one, other, file].toSorted());
  assert.deepEqual([made.save_point_id, made.incomplete, made.parent], [null, null, null]);
  const target = restored(at);
  for (const folder of [one, other])
    assert.deepEqual(differencesOf(readFolder(path.join(target, folder)), readFolder(folder)), []);
  assert.deepEqual(fs.readdirSync(path.dirname(path.join(target, file))), [path.basename(file)]);
  assert.equal(fs.readFileSync(path.join(target, file), "utf8"), "alone\n");
  assert.equal(cairn(["history", "-C", one]).error?.code, "not_a_workspace");
  backup(place, "verify");
});

test("a second snapshot of the same folders has the first as its parent, and stores only changed files", async () => {
  const at = await scene("again");
  const { place, one, other } = at;
  const first = backup(place, "create", one, other).data as unknown as PathsBackupResult;
  // What else happens above them makes no other snapshot.
  fs.writeFileSync(path.join(path.dirname(one), "beside"), "");
  const same = backup(place, "create", other, one, "--skip-unchanged").data as unknown as PathsBackupResult;
  assert.deepEqual([same.unchanged, same.snapshot, same.added.packs], [true, null, 0]);
  fs.writeFileSync(path.join(other, "deep/file"), "changed\n");
  const second = backup(place, "create", one, other).data as unknown as PathsBackupResult;
  assert.deepEqual([second.parent, second.unchanged], [first.snapshot!.snapshot_id, false]);
  assert.equal(second.added.data_blobs, 1);
  // What the repository has lost since is read and stored again, though nothing has changed.
  backup(place, "forget", first.snapshot!.snapshot_id, second.snapshot!.snapshot_id, "--prune", "--allow", "empty");
  const anew = backup(place, "create", one, other).data as unknown as PathsBackupResult;
  assert.ok(anew.added.data_blobs > 5, JSON.stringify(anew.added));
  assert.deepEqual(differencesOf(readFolder(path.join(restored(at), one)), readFolder(one)), []);
  backup(place, "verify");
});

test("--files-from accepts comments and patterns, and missing paths are listed as left out", async () => {
  const at = await scene("listed");
  const { place, one, other, file } = at;
  const list = path.join(SCRATCH, "listed.txt");
  fs.writeFileSync(
    list,
    `# folders\n${one}/same\n\n  ${path.dirname(other)}/${path.basename(other).slice(0, -1)}?/de*\n${file.replaceAll(/[[*]/g, "\\$&")}\n${one}/none\n`,
  );
  const { status, data } = tryBackup(place, "create", "--files-from", list, "--exclude", "kept.*");
  const made = data as unknown as PathsBackupResult;
  assert.equal(status, 10);
  assert.deepEqual(
    made.incomplete!.left_out.map(({ path: lost, reason }) => [lost, reason]),
    [[`${one}/none`, "vanished"]],
  );
  assert.deepEqual(made.snapshot!.paths, [`${one}/none`, `${one}/same`, `${other}/deep`, file].toSorted());
  const target = restored(at);
  assert.deepEqual(fs.readdirSync(path.join(target, one)), ["same"]);
  assert.deepEqual(fs.readdirSync(path.join(target, one, "same")), ["updated.txt"]);
  assert.equal(fs.readFileSync(path.join(target, other, "deep/file"), "utf8"), "deep\n");
  const none = tryBackup(place, "create", `${one}/none`, `${one}/nor this`);
  assert.deepEqual([none.status, none.error?.code], [3, "not_found"]);
  const args = [buildCommand(), "backup", "create", "--json", "--files-from", "-", ...place.options];
  const piped = spawnSync(process.execPath, args, { input: `${other}\n`, encoding: "utf8" });
  const { data: ofOther } = JSON.parse(piped.stdout) as { data: PathsBackupResult };
  assert.deepEqual(ofOther.snapshot!.paths, [other]);
});

test("a backup of several folders is complete if only ignore rules leave files out", async () => {
  const { place, one, other } = await scene("left");
  fs.writeFileSync(path.join(one, ".cairnignore"), "same\n");
  fs.writeFileSync(path.join(other, "same"), "not left out here\n");
  const made = backup(place, "create", one, other, path.join(other, "deep")).data as unknown as PathsBackupResult;
  assert.deepEqual([made.incomplete, made.left_out], [null, []]);
  // Of a folder in another one there is one copy, under both paths.
  assert.deepEqual(made.snapshot!.paths, [one, other, path.join(other, "deep")].toSorted());
  const { data } = backup(place, "show", "latest", "-R");
  const names = (data["entries"] as { path: string }[]).map((entry) => `/${entry.path}`);
  assert.deepEqual([names.includes(`${one}/same`), names.includes(`${other}/same`)], [false, true]);
  assert.equal(names.filter((name) => name === `${other}/deep/file`).length, 1);
});

test("backup create of several folders refuses options that only apply to save points", async () => {
  const { place, one, other } = await scene("refused");
  for (const words of [["--no-save"], ["-m", "x"], ["--plan"], ["--exclude-caches"]])
    assert.equal(tryBackup(place, "create", one, other, ...words).error?.code, "usage", words.join(" "));
  assert.equal(tryBackup(place, "create", one, "/").error?.code, "refused");
  assert.equal(tryBackup(place, "create", one, place.location).error?.code, "refused");
});

test(
  "restic restores a snapshot of several folders, and uses it as the parent of its own snapshot",
  { skip: noRestic },
  async () => {
    const at = await scene("restic");
    const { place, one, other } = at;
    backup(place, "create", one, other);
    restic(place, "check", "--read-data");
    const [made] = resticSnapshots(place);
    assert.deepEqual(made!.paths, [one, other].toSorted());
    const target = path.join(SCRATCH, "restic-paths");
    restic(place, "restore", "latest", "--target", target);
    for (const folder of [one, other])
      assert.deepEqual(
        differencesOf(
          readFolder(path.join(target, folder), { withoutRootTime: true }),
          readFolder(folder, { withoutRootTime: true }),
        ),
        [],
      );
    restic(place, "backup", one, other);
    assert.equal(resticSnapshots(place).find(({ id }) => id !== made!.id)!.parent, made!.id);
  },
);
