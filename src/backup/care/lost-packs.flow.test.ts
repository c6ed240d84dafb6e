import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readdirSync, rmSync, symlinkSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { test } from "node:test";
import { walkDigests } from "../../workspace/store/testing-walk.ts";
import { backupScene, type BackupScene, nodeAt, packWith } from "../testing-far.ts";

/** The pack that has the content of a file of the folder's newest snapshot. */
async function packOf(at: BackupScene, name: string): Promise<string> {
  const snapshot = (await at.repository.list()).snapshots.at(-1);
  return packWith(at, (await nodeAt(at.repository, snapshot!.snapshot_id, `${at.folder}/${name}`)).content![0]!);
}

async function* once(bytes: string): AsyncGenerator<Uint8Array> {
  yield Buffer.from(bytes);
}

for (const way of ["of a point", "with its save"] as const)
  test(`a backup ${way} stores content again whose pack a local repository has lost`, async (t) => {
    const at = await backupScene(t, "local");
    const { client, repository, folder, root } = at;
    at.write("a.txt", "content that is lost\n");
    await client.createBackup(repository, { save: true });
    rmSync(await packOf(at, "a.txt"));
    const warnings: string[] = [];
    const call = { save: way === "with its save", onWarning: (message: string) => void warnings.push(message) };
    const planned = await client.createBackup(repository, { ...call, save: false, dryRun: true });
    assert.ok(planned.added.data_blobs > 0);
    assert.equal(warnings.splice(0).length, 1);
    const again = await client.createBackup(repository, call);
    assert.deepEqual([again.unchanged, again.added.data_blobs > 0], [true, true]);
    assert.match(
      warnings[0]!,
      /has 1 damaged, missing or cut pack with \d+ blobs? that no other pack has, of which [1-9]\d* w.* stored again/,
    );
    assert.equal((await client.createBackup(repository, { skipIfUnchanged: true })).snapshot, null);
    const { proof } = await repository.restore("latest", join(root, "restored"));
    assert.equal(proof?.state_digest, walkDigests(folder).state);
    await repository.repair({ what: "index" });
    assert.deepEqual((await repository.verify()).problems, []);
  });

test("restore and createBackup do not count packs as lost if their folder cannot be listed", async (t) => {
  const at = await backupScene(t, "local");
  const { client, repository, folder, root } = at;
  await client.createBackup(repository, { save: true });
  let alone: string;
  do {
    at.write("gone.txt", randomBytes(100).toString("hex"));
    await client.createBackup(repository, { save: true });
    alone = dirname(await packOf(at, "gone.txt"));
  } while (readdirSync(alone).length > 1);
  rmSync(join(folder, "gone.txt"));
  await client.createBackup(repository, { save: true });
  rmSync(alone, { recursive: true });
  symlinkSync(basename(alone), alone);
  const warnings: string[] = [];
  at.write("a.txt", "later");
  await client.createBackup(repository, { save: true, onWarning: (message) => void warnings.push(message) });
  assert.match(warnings.join("\n"), /cannot check that all packs are there/);
  const { proof } = await repository.restore("latest", join(root, "restored"));
  assert.equal(proof?.state_digest, walkDigests(folder).state);
});

test("createFromStream stores content again that a local repository has lost", async (t) => {
  const { repository, place, root } = await backupScene(t, "local");
  await repository.createFromStream(once("lines\n"), { filename: "dump" });
  for (const folder of readdirSync(join(place, "data"))) rmSync(join(place, "data", folder), { recursive: true });
  const again = await repository.createFromStream(once("lines\n"), { filename: "dump", skipIfUnchanged: true });
  assert.deepEqual([again.snapshot !== null, again.added.data_blobs], [true, 2], "the file and the manifest");
  assert.ok((await repository.restore("latest", join(root, "restored"))).proof !== null);
});
