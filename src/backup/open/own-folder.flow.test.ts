import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { BackupRepository } from "../../contract/index.ts";
import { hasCode } from "../../keep/testing-folder.ts";
import { backupScene, type BackupScene } from "../testing-far.ts";

async function inside(
  at: BackupScene,
  name = "vault/repository",
): Promise<{ repository: BackupRepository; place: string }> {
  const place = join(at.folder, name);
  mkdirSync(place, { recursive: true });
  const repository = await at.library.initRepository({ repository: `local:${place}`, password: "inside" });
  return { repository, place };
}

function filesIn(place: string): string[] {
  return readdirSync(place, { recursive: true, encoding: "utf8" })
    .filter((path) => !path.startsWith("tmp"))
    .toSorted();
}

/** Of the only snapshot. */
async function excludesOf(repository: BackupRepository): Promise<unknown> {
  const [snapshot] = (await repository.list()).snapshots;
  const { content } = await repository.cat("snapshot", snapshot?.snapshot_id);
  return (content as { excludes?: unknown }).excludes;
}

test("restore refuses a target inside the repository, also through a link", async (t) => {
  const { client, repository, root, place } = await backupScene(t, "local");
  await client.createBackup(repository, { save: true });
  symlinkSync(place, join(root, "link"));
  const before = filesIn(place);
  for (const to of [join(place, "restored"), join(root, "link/data/restored")])
    await assert.rejects(repository.restore("latest", to), hasCode("refused"));
  assert.deepEqual(filesIn(place), before);
  assert.notEqual((await repository.restore("latest", join(root, "restored"))).proof, null);
});

test("restoreBackup refuses to restore a folder in place if that would change the repository in it", async (t) => {
  const at = await backupScene(t, "local");
  const { client, write } = at;
  await using repository = (await inside(at)).repository;
  await client.save();
  await client.createBackup(repository, { save: false });
  write("a.txt", "changed\n");
  await client.save();
  await client.createBackup(repository, { save: false });
  const points = (await client.history(undefined, 0, { all: true })).save_points.length;
  for (const choice of [{}, { dryRun: true }, { paths: ["vault"] }, { paths: ["vault/repository/data"] }])
    await assert.rejects(client.restoreBackup(repository, "latest", choice), {
      code: "refused",
      message: /would get its state of that time back/,
    });
  assert.equal((await client.history(undefined, 0, { all: true })).save_points.length, points);
  assert.equal((await repository.list()).snapshots.length, 2);
  const [{ snapshot_id: first } = { snapshot_id: "" }] = (await repository.list()).snapshots;
  await client.restoreBackup(repository, first, { paths: ["a.txt"] });
  assert.equal(readFileSync(join(at.folder, "a.txt"), "utf8"), "a\n");
  assert.deepEqual((await repository.verify()).problems, []);
});

test("restoreBackup restores a folder in place if ignore rules exclude the repository in it", async (t) => {
  const at = await backupScene(t, "local");
  const { client, write } = at;
  const { repository, place } = await inside(at);
  t.after(async () => repository.close());
  write(".cairnignore", "/vault/\n");
  const warnings: string[] = [];
  const onWarning = (warning: string): unknown => warnings.push(warning);
  await client.createBackup(repository, { save: true, onWarning });
  assert.deepEqual(warnings, []);
  assert.equal(await excludesOf(repository), undefined);
  write("a.txt", "changed\n");
  const { proof } = await client.restoreBackup(repository, "latest");
  assert.notEqual(proof, null);
  assert.equal(readFileSync(join(at.folder, "a.txt"), "utf8"), "a\n");
  assert.ok(existsSync(join(place, "config")));
  assert.deepEqual((await repository.verify()).problems, []);
});

for (const name of ["backups", "vault/my repo [1]*? ", "back\\slash", "\u{fffd}"])
  test(`a backup leaves out the repository ${JSON.stringify(name)} inside the folder, with a warning`, async (t) => {
    const at = await backupScene(t, "local");
    const { client, write } = at;
    const { repository, place } = await inside(at, name);
    t.after(async () => repository.close());
    write("vault/my repo 1x/kept", "of another name\n");
    const warnings: string[] = [];
    const options = { save: true, exclude: ["*.tmp"], onWarning: (warning: string): unknown => warnings.push(warning) };
    const first = await client.createBackup(repository, options);
    const second = await client.createBackup(repository, options);
    assert.deepEqual([first.incomplete, second.unchanged, second.save_point_id], [null, true, first.save_point_id]);
    assert.match(warnings.join("\n"), /^the repository .* is left out, as by --exclude \/.*\n.*$/);
    const { found } = await repository.find("*", { snapshots: [first.snapshot?.snapshot_id ?? ""] });
    const paths = found.map(({ path }) => path);
    assert.ok(paths.some((path) => path.endsWith("/vault/my repo 1x/kept")));
    assert.deepEqual(
      paths.filter((path) => path.endsWith("/config")),
      [],
    );
    write("a.txt", "changed\n");
    assert.notEqual((await client.restoreBackup(repository, "latest")).proof, null);
    assert.equal(readFileSync(join(at.folder, "a.txt"), "utf8"), "a\n");
    assert.ok(existsSync(join(place, "config")));
  });

test("a backup leaves out a repository with a non-UTF-8 name although a rule includes it", async (t) => {
  const at = await backupScene(t, "local");
  const name = Buffer.concat([Buffer.from(`${at.folder}/raw-`), Buffer.from([0xff])]);
  const { repository, place } = await inside(at, "before");
  await repository.close();
  renameSync(place, name);
  symlinkSync(name, join(at.root, "link"));
  await using again = await at.library.openRepository({ repository: join(at.root, "link"), password: "inside" });
  await at.client.createBackup(again, { save: true, exclude: ["!/raw-*"] });
  assert.deepEqual(await excludesOf(again), ["!/raw-*", "/raw-[![:print:][:cntrl:]]"]);
  assert.deepEqual((await again.find("config")).found, []);
});

test("a backup refuses a folder that is the repository itself", async (t) => {
  const at = await backupScene(t, "local");
  await using client = await at.library.openOrInit(at.place);
  const before = filesIn(at.place);
  for (const dryRun of [false, true])
    // A dry run makes no point, and there is none.
    await assert.rejects(
      client.createBackup(at.repository, { save: true, dryRun }),
      hasCode(dryRun ? "not_found" : "refused"),
    );
  assert.deepEqual(filesIn(at.place), before);
  assert.equal(await client.hasSavePoints(), false);
});
