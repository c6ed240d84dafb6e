import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { walkDigests } from "../workspace/store/testing-walk.ts";
import type { BackupRepository } from "../contract/index.ts";
import { hasCode } from "../keep/testing-folder.ts";
import type { OpenedRepository } from "../keep/opened-repository.ts";
import { backupScene, opened, SCHEMES } from "./testing-far.ts";

function packsIn(data: string): string[] {
  return readdirSync(data, { recursive: true, encoding: "utf8" })
    .filter((name) => /\/[0-9a-f]{64}$/.test(name))
    .toSorted();
}

/** None where one of its folders goes meanwhile. */
function namesBelow(folder: string): string[] {
  try {
    return readdirSync(folder, { recursive: true, encoding: "utf8" });
  } catch {
    return [];
  }
}

async function blobsOf(repository: BackupRepository): Promise<number> {
  return (await (repository as OpenedRepository).access.index()).count;
}

for (const scheme of SCHEMES)
  test(`a backup that saves first stores the same blobs on a ${scheme} storage as a save and a later backup`, async (t) => {
    const { client, repository, library, options, folder, place, root, write } = await backupScene(t, scheme);
    for (let i = 0; i < 3; i++) writeFileSync(join(folder, `large-${i}`), randomBytes(9 << 20));
    let most = 0;
    const one = await client.createBackup(repository, {
      save: true,
      onProgress: ({ phase, total = 0 }) => {
        if (phase === "uploading") most = Math.max(most, total);
      },
    });
    assert.equal(
      most,
      one.added.data_blobs + one.added.tree_blobs + 1,
      "what was forwarded is told of, and nothing twice",
    );
    const other = `${place}-other`;
    await library.initRepository({ ...options, repository: other });
    const second = await library.openRepository({ ...options, repository: other });
    t.after(async () => second.close());
    const after = await client.createBackup(second);
    const counted = ({ data_blobs: data, tree_blobs: trees, bytes }: typeof one.added): number[] => [
      data,
      trees,
      bytes,
    ];
    assert.deepEqual(counted(one.added), counted(after.added));
    assert.equal(one.added.packs, packsIn(join(place, "data")).length);
    assert.equal(await blobsOf(repository), one.added.data_blobs + one.added.tree_blobs);
    write("a.txt", "changed\n");
    const next = await client.createBackup(repository, { save: true });
    assert.deepEqual([next.added.data_blobs, next.added.packs], [2, 2]);
    const { problems } = await repository.verify();
    assert.deepEqual(problems, []);
    const { proof } = await repository.restore("latest", join(root, "restored"));
    assert.equal(proof?.state_digest, walkDigests(folder).state);
  });

test("a backup does not send content again that the repository has and the workspace's own store lacks", async (t) => {
  const { client, repository, library, folder, root, place } = await backupScene(t, "local");
  // One blob each: every store cuts large files in places of its own.
  for (let i = 0; i < 10; i++) writeFileSync(join(folder, `middle-${i}`), randomBytes(300_000));
  await client.createBackup(repository, { save: true });
  const before = packsIn(join(place, "data"));
  const blobs = await blobsOf(repository);
  // The same content in another folder, whose store is empty.
  const again = join(root, "again");
  await repository.restore("latest", again);
  const other = await library.init(again);
  const { added } = await other.createBackup(repository, { save: true });
  assert.ok(added.bytes < 100_000, `${added.bytes} bytes came`);
  assert.ok(packsIn(join(place, "data")).length - before.length <= 2);
  assert.equal(await blobsOf(repository), blobs + added.data_blobs + added.tree_blobs);
});

test("a backup makes no save point if its repository cannot be locked", async (t) => {
  const { client, repository, place, options, library } = await backupScene(t, "local");
  await client.createBackup(repository, { save: true });
  const { access } = repository as OpenedRepository;
  const head = (await client.status()).head;
  await access.locked(true, {}, async () => {
    const refused = client.createBackup(await library.openRepository(options), { save: true, lockTimeoutMs: 0 });
    await assert.rejects(refused, hasCode("busy"));
  });
  assert.equal((await client.status()).head, head);
  assert.deepEqual(readdirSync(join(place, "locks")), []);
});

test("a backup makes no save point if its repository cannot be opened", async (t) => {
  const { client, library, options, root } = await backupScene(t, "local");
  const opening = library.openRepository(options);
  const { snapshot } = await client.createBackup(opening, { save: true });
  const repository = await opening;
  t.after(async () => repository.close());
  assert.equal((await repository.list()).snapshots[0]?.snapshot_id, snapshot?.snapshot_id);
  const { head } = await client.status();
  const nowhere = library.openRepository({ ...options, repository: join(root, "nowhere") });
  await assert.rejects(client.createBackup(nowhere, { save: true }), hasCode("not_found"));
  const wrong = library.openRepository({ ...options, password: "another" });
  await assert.rejects(client.createBackup(wrong), hasCode("wrong_password"));
  assert.equal((await client.status()).head, head);
});

test("a backup with an invalid tag makes no save point", async (t) => {
  const { client, repository } = await backupScene(t, "local");
  for (const tag of ["", "cairn:", `cairn:${"0".repeat(32)}`])
    await assert.rejects(client.createBackup(repository, { save: true, tags: [tag] }), hasCode("usage"));
  assert.deepEqual((await client.history()).save_points, []);
});

test("a backup whose upload fails during the save still makes the save point", async (t) => {
  const { client, repository, folder, root } = await backupScene(t, "faulty");
  writeFileSync(join(folder, "large"), randomBytes(40_000_000));
  opened.faulty!.arm({ operation: "saveFile", kind: "data", fault: "fail" });
  const failed = client.createBackup(repository, { save: true });
  await assert.rejects(failed, hasCode("io"));
  const { save_points: points } = await client.history();
  assert.equal(points.length, 1);
  assert.equal((await repository.list()).snapshots.length, 0);
  await client.createBackup(repository, { save: true });
  assert.equal((await client.history()).save_points.length, 1, "the folder had not changed");
  const { proof } = await repository.restore("latest", join(root, "restored"));
  assert.equal(proof?.state_digest, walkDigests(folder).state);
});

test("a backup whose lock is removed during the save writes no index", async (t) => {
  const { client, repository, place, folder } = await backupScene(t, "local");
  writeFileSync(join(folder, "large"), randomBytes(60_000_000));
  const tmp = join(place, "tmp");
  const taking = setInterval(() => {
    if (!namesBelow(tmp).some((name) => name.includes("/forwarded-"))) return;
    for (const name of readdirSync(join(place, "locks"))) rmSync(join(place, "locks", name), { force: true });
  }, 1);
  try {
    await assert.rejects(client.createBackup(repository, { save: true }), hasCode("busy"));
  } finally {
    clearInterval(taking);
  }
  assert.deepEqual(readdirSync(join(place, "index")), []);
  assert.equal((await client.history()).save_points.length, 1);
  await client.createBackup(repository);
  assert.deepEqual(
    (await repository.verify()).problems.filter(({ severity }) => severity === "damage"),
    [],
  );
});

test("a backup makes no snapshot of a point whose content both the store and the repository have lost", async (t) => {
  const { client, repository, place, folder, root } = await backupScene(t, "local");
  await client.createBackup(repository, { save: true });
  // Their largest pack: the trees stay.
  for (const data of [join(place, "data"), join(client.controlDirectory, "store/data")]) {
    const packs = packsIn(data).map((name) => join(data, name));
    rmSync(packs.toSorted((one, other) => statSync(one).size - statSync(other).size).at(-1)!);
  }
  await client.doctor({ repair: true });
  await repository.repair({ what: "index" });
  await assert.rejects(client.createBackup(repository, { save: false }), hasCode("damaged"));
  assert.equal((await repository.list()).snapshots.length, 1);
  await client.createBackup(repository, { save: true });
  const { proof } = await repository.restore("latest", join(root, "restored"));
  assert.equal(proof?.state_digest, walkDigests(folder).state);
});

test("a backup that saves first names the mounts that the save left out", async (t) => {
  let at = "";
  // Before the folder goes.
  t.after(() => spawnSync("umount", ["--lazy", at], { stdio: "ignore" }));
  const { client, repository, folder } = await backupScene(t, "local");
  at = join(folder, "mounted");
  mkdirSync(at);
  if (spawnSync("mount", ["-t", "tmpfs", "none", at], { stdio: "ignore" }).status !== 0)
    return t.skip("mounting is not allowed");
  writeFileSync(join(at, "there"), "y");
  for (const more of [{}, { skipIfUnchanged: true }]) {
    const { left_out: leftOut, incomplete } = await client.createBackup(repository, { save: true, ...more });
    assert.deepEqual([leftOut.map(({ path, reason }) => `${path} ${reason}`), incomplete], [["mounted mounted"], null]);
  }
  assert.deepEqual((await client.createBackup(repository, { save: false })).left_out, []);
  const crossed = await client.createBackup(repository, { save: true, crossMounts: true });
  assert.deepEqual(crossed.left_out, []);
  const { found } = await repository.find("there", { snapshots: [crossed.snapshot!.snapshot_id] });
  assert.equal(found.length, 1);
});
