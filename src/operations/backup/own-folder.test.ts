import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { BackupRepository } from "../contract.ts";
import { hasCode } from "../testing-folder.ts";
import { backupScene, type BackupScene } from "./testing-far.ts";

async function inside(at: BackupScene): Promise<{ repository: BackupRepository; place: string }> {
  const place = join(at.folder, "vault/repository");
  mkdirSync(place, { recursive: true });
  const repository = await at.library.initRepository({ repository: `local:${place}`, password: "inside" });
  return { repository, place };
}

function filesIn(place: string): string[] {
  return readdirSync(place, { recursive: true, encoding: "utf8" }).toSorted();
}

test("a target in the repository is refused when a link leads to it too", async (t) => {
  const { client, repository, root, place } = await backupScene(t, "local");
  await client.createBackup(repository, { save: true });
  symlinkSync(place, join(root, "link"));
  const before = filesIn(place);
  for (const to of [join(place, "restored"), join(root, "link/data/restored")])
    await assert.rejects(repository.restore("latest", to), hasCode("refused"));
  assert.deepEqual(filesIn(place), before);
  assert.notEqual((await repository.restore("latest", join(root, "restored"))).proof, null);
});

test("a folder is not restored in place when the repository in it would be taken back", async (t) => {
  const at = await backupScene(t, "local");
  const { client, write } = at;
  await using repository = (await inside(at)).repository;
  await client.createBackup(repository, { save: true });
  write("a.txt", "changed\n");
  await client.createBackup(repository, { save: true });
  const points = (await client.history()).save_points.length;
  for (const choice of [{}, { dryRun: true }, { paths: ["vault"] }, { paths: ["vault/repository/data"] }])
    await assert.rejects(client.restoreBackup(repository, "latest", choice), {
      code: "refused",
      message: /would become what it was/,
    });
  assert.equal((await client.history()).save_points.length, points);
  assert.equal((await repository.list()).snapshots.length, 2);
  const [{ snapshot_id: first } = { snapshot_id: "" }] = (await repository.list()).snapshots;
  await client.restoreBackup(repository, first, { paths: ["a.txt"] });
  assert.equal(readFileSync(join(at.folder, "a.txt"), "utf8"), "a\n");
  assert.deepEqual((await repository.verify()).problems, []);
});

test("a folder is restored in place when the snapshot's rules leave the repository in it out", async (t) => {
  const at = await backupScene(t, "local");
  const { client, write } = at;
  const { repository, place } = await inside(at);
  t.after(async () => repository.close());
  write(".cairnignore", "/vault/\n");
  await client.createBackup(repository, { save: true });
  write("a.txt", "changed\n");
  const { proof } = await client.restoreBackup(repository, "latest");
  assert.notEqual(proof, null);
  assert.equal(readFileSync(join(at.folder, "a.txt"), "utf8"), "a\n");
  assert.ok(existsSync(join(place, "config")));
  assert.deepEqual((await repository.verify()).problems, []);
});
