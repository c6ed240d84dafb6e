import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import fs from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import type { BackupRepository, BackupSnapshot, RecoverBackupsResult } from "../../contract/index.ts";
import type { ObjectId } from "../../ids.ts";
import { hasCode } from "../../keep/testing-folder.ts";
import { acquireLock } from "../../repository/locks.ts";
import type { OpenedRepository } from "../../keep/opened-repository.ts";
import { backupScene, type BackupScene, packWith, SCHEMES, spoil } from "../testing-far.ts";

const ENTRY = fileURLToPath(new URL("../../cli/program/entry.ts", import.meta.url));
const hasRestic = spawnSync("restic", ["version"]).error === undefined;

function restic(at: BackupScene, place: string, ...args: string[]): string {
  const env = {
    ...process.env,
    RESTIC_PASSWORD: String(at.options.password),
    RESTIC_CACHE_DIR: join(at.root, "restic"),
  };
  const done = spawnSync("restic", ["-q", "-r", place, ...args], { env, encoding: "utf8", cwd: at.root });
  assert.equal(done.status, 0, done.stderr);
  return done.stdout;
}

async function* oneLine(): AsyncGenerator<Uint8Array> {
  yield Buffer.from("dump\n");
}

/** Three states, of which the second has the folder's only entry in a folder of its own, and two streams. */
async function someBackups({ client, repository, write, folder }: BackupScene): Promise<BackupSnapshot[]> {
  await client.createBackup(repository, { save: true });
  write("a.txt", "changed\n");
  fs.truncateSync(join(folder, "a.txt"), 3_000_000);
  await client.createBackup(repository, { save: true });
  for (const name of fs.readdirSync(folder)) if (name !== "deep") fs.rmSync(join(folder, name), { recursive: true });
  await client.createBackup(repository, { save: true });
  for (const filename of ["top.sql", "dumps/db.sql"]) await repository.createFromStream(oneLine(), { filename });
  return (await repository.list()).snapshots;
}

async function forgetAll(repository: BackupRepository): Promise<void> {
  await repository.forget({ snapshots: (await repository.list()).snapshots.map(({ snapshot_id: id }) => id) });
}

/** Of a file that is one blob. */
function contentId(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

function treesOf(result: RecoverBackupsResult): string[] {
  return (result.gathered?.trees ?? []).map(({ tree }) => tree).toSorted();
}

for (const scheme of SCHEMES)
  test(`recover lists the trees of forgotten snapshots in one new snapshot: ${scheme}`, async (t) => {
    const at = await backupScene(t, scheme);
    const { repository, root, folder } = at;
    const before = await someBackups(at);
    assert.equal((await repository.recover()).gathered, null);
    const [kept, ...gone] = before;
    await repository.forget({ snapshots: gone.map(({ snapshot_id: id }) => id) });

    const plan = await repository.recover({ dryRun: true });
    assert.equal(plan.gathered?.new_id, null);
    assert.deepEqual(treesOf(plan), gone.map(({ tree }) => tree).toSorted());
    assert.equal((await repository.list()).snapshots.length, 1);

    const done = await repository.recover({ hostname: "elsewhere" });
    assert.deepEqual(done.unreadable, []);
    assert.deepEqual(treesOf(done), gone.map(({ tree }) => tree).toSorted());
    const { snapshots } = await repository.list({ hosts: ["elsewhere"] });
    assert.deepEqual(
      snapshots.map(({ snapshot_id: id, paths, tags, save_point_id: point }) => [id, paths, tags, point]),
      [[done.gathered?.new_id, ["/recover"], ["recovered"], null]],
    );
    assert.ok(Date.parse(snapshots[0]!.created_at) <= Date.now());
    assert.equal(
      (await repository.list()).snapshots.some(({ snapshot_id: id }) => id === kept!.snapshot_id),
      true,
    );
    const { problems, checked } = await repository.verify();
    assert.deepEqual([problems, checked.digests], [[], 1]);
    for (const { tree, path } of done.gathered!.trees) {
      const [inside] = gone.find((each) => each.tree === tree)!.paths;
      const to = join(root, `to-${tree}`);
      const { entries, left_out: left } = await repository.restore(`${done.gathered!.new_id!}`, to, {
        subfolder: path + (inside!.endsWith(".sql") ? "" : inside!),
        prove: true,
      });
      assert.deepEqual([entries > 0, left], [true, []], path);
      if (inside === folder) assert.equal(fs.readFileSync(join(to, "deep/b.txt"), "utf8"), "b\n");
    }
    assert.deepEqual(treesOf(await repository.recover()), []);
  });

test("recover finds the trees of an unreadable snapshot and of a removed one", async (t) => {
  const at = await backupScene(t, "local");
  const { repository, place } = at;
  const before = await someBackups(at);
  const [first, second] = before.map(({ snapshot_id: id }) => join(place, "snapshots", id));
  fs.chmodSync(first!, 0o600);
  fs.writeFileSync(first!, "damaged");
  fs.rmSync(second!);
  const done = await repository.recover();
  assert.deepEqual(
    treesOf(done),
    before
      .slice(0, 2)
      .map(({ tree }) => tree)
      .toSorted(),
  );
});

test(
  "recover finds the same trees as `restic recover`, also trees that restic saved",
  { skip: hasRestic ? false : "no restic" },
  async (t) => {
    const at = await backupScene(t, "local");
    const { repository, place, root, folder } = at;
    await someBackups(at);
    fs.mkdirSync(join(root, "other"));
    fs.writeFileSync(join(root, "other/x"), "theirs");
    restic(at, place, "backup", folder);
    restic(at, place, "backup", "other");
    await forgetAll(repository);
    const copy = join(root, "copy");
    fs.cpSync(place, copy, { recursive: true });
    restic(at, copy, "recover");
    const theirs = restic(at, copy, "ls", "latest")
      .split("\n")
      .filter((path) => /^\/[0-9a-f]{8}$/.test(path));

    const done = await repository.recover();
    assert.deepEqual(
      treesOf(done).map((tree) => `/${tree.slice(0, 8)}`),
      theirs.toSorted(),
    );
    assert.equal(done.gathered?.trees.length, 7);
    restic(at, place, "check", "--read-data");
    assert.deepEqual((await repository.verify()).problems, []);
    const to = join(root, "to");
    await repository.restore(done.gathered!.new_id!, to);
    const files = fs.readdirSync(to, { recursive: true, encoding: "utf8" }).map((path) => path.replace(/^\w+\//, ""));
    assert.ok(files.includes("other/x") && files.includes(`${folder.slice(1)}/deep/b.txt`));
    // What restic or a call before gathered is not gathered once more when its snapshot is gone.
    await forgetAll(repository);
    assert.deepEqual(treesOf(await repository.recover()), treesOf(done));
  },
);

test("restoreBackup refuses a recovered snapshot, which can be restored elsewhere", async (t) => {
  const { client, repository, write, folder, root } = await backupScene(t, "local");
  await client.createBackup(repository, { save: true });
  await forgetAll(repository);
  const { gathered } = await repository.recover();
  write("a.txt", "changed\n");
  await assert.rejects(client.restoreBackup(repository, gathered!.new_id!), hasCode("refused"));
  await repository.restore(gathered!.new_id!, join(root, "to"), { subfolder: gathered!.trees[0]!.path + folder });
  assert.equal(fs.readFileSync(join(root, "to/a.txt"), "utf8"), "a\n");
});

test("restoring a snapshot in place that an earlier version recovered deletes no entry", async (t) => {
  const at = await backupScene(t, "local");
  const { client, repository, write, folder } = at;
  write("secret", "1");
  const { snapshot } = await client.createBackup(repository, { save: true, exclude: ["/secret"] });
  const stored = (repository as OpenedRepository).access.repository;
  const { excludes: _excludes, ...made } = await stored.loadSnapshot(snapshot!.snapshot_id as ObjectId);
  await forgetAll(repository);
  const id = await stored.saveSnapshot({ ...made, tags: ["recovered", "cairn:recovered"] });
  write("a.txt", "changed\n");
  const { changes } = await client.restoreBackup(repository, id);
  assert.equal(changes?.deleted, 0);
  assert.equal(fs.readFileSync(join(folder, "a.txt"), "utf8"), "a\n");
  assert.ok(fs.existsSync(join(folder, "secret")));
});

test("a snapshot that a user tagged `recovered` is restored in place like any other", async (t) => {
  const { client, repository, write, folder } = await backupScene(t, "local");
  const { snapshot } = await client.createBackup(repository, { save: true, tags: ["recovered"] });
  write("later", "1");
  await client.restoreBackup(repository, snapshot!.snapshot_id);
  assert.ok(!fs.existsSync(join(folder, "later")));
});

test("recover fails with `busy` while a backup runs", async (t) => {
  const at = await backupScene(t, "local");
  const { repository } = at;
  await someBackups(at);
  await forgetAll(repository);
  const lock = await acquireLock((repository as OpenedRepository).access.repository, { exclusive: false });
  await assert.rejects(repository.recover({ lockTimeoutMs: 0 }), hasCode("busy"));
  await lock.release();
  assert.equal((await repository.recover()).gathered?.trees.length, 5);
});

test("recover leaves out lost entries, and is refused until the index is repaired", async (t) => {
  const at = await backupScene(t, "local");
  const { client, repository, write, place, root } = at;
  await client.createBackup(repository, { save: true });
  write("own", "only here");
  await client.createBackup(repository, { save: true });
  const [, { snapshot_id: id } = { snapshot_id: "" }] = (await repository.list()).snapshots;
  const { entries } = await repository.show(id, "own");
  assert.equal(entries[0]?.path, "own");
  await repository.forget({ snapshots: [id] });
  const lost = await packWith(at, contentId("only here"));
  spoil([lost], "lost");
  await assert.rejects(repository.recover(), hasCode("refused"));
  await repository.repair({ what: "index" });
  const { gathered } = await repository.recover();
  // The pack had the manifest too.
  assert.deepEqual(
    gathered?.trees.map((tree) => tree.lost),
    [2],
  );
  assert.deepEqual((await repository.verify()).problems, []);
  const to = join(root, "to");
  await repository.restore(gathered!.new_id!, to);
  const names = fs.readdirSync(to, { recursive: true, encoding: "utf8" });
  assert.ok(names.some((name) => name.endsWith("deep/b.txt")) && !names.some((name) => name.endsWith("/own")));
  assert.ok(fs.existsSync(place));
});

test("a recover that was killed leaves trees that the next recover finds", async (t) => {
  const at = await backupScene(t, "local");
  const { repository, place, root } = at;
  await someBackups(at);
  if (hasRestic) restic(at, place, "backup", join(root, "work/deep"));
  const all = (await repository.list()).snapshots;
  await forgetAll(repository);
  const env = { ...process.env, CAIRN_PASSWORD: String(at.options.password) };
  for (const failpoint of ["recover.trees-written", "recover.snapshot-written"]) {
    const line = [ENTRY, "backup", "recover", "-r", place];
    const done = spawnSync(process.execPath, line, { env: { ...env, CAIRN_FAILPOINT: failpoint } });
    assert.equal(done.signal, "SIGKILL", done.stderr.toString());
  }
  await repository.unlock({ all: true });
  // The second one had made the snapshot.
  assert.equal((await repository.recover()).gathered, null);
  const [only, ...others] = (await repository.list()).snapshots;
  assert.deepEqual(others, []);
  const { entries } = await repository.show(only!.snapshot_id);
  assert.deepEqual(
    entries.map(({ path }) => path),
    [...new Set(all.map(({ tree }) => tree.slice(0, 8)))].toSorted(),
  );
  assert.deepEqual((await repository.verify()).problems, []);
});
