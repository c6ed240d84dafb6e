import assert from "node:assert/strict";
import {
  chmodSync,
  closeSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { rightsCount, runWithoutCapabilities } from "../../workspace/store/testing-rights.ts";
import { walkDigests } from "../../workspace/store/testing-walk.ts";
import type { Client, RestoreInPlaceOptions } from "../../contract/index.ts";
import { commit, makeDatabase, stateAfter, stateOf } from "../../capture/sqlite/testing-writer.ts";
import { hasCode } from "../../keep/testing-folder.ts";
import { backupScene, type BackupScene, damagePack, SCHEMES } from "../testing-far.ts";

/** Of whatever folder. */
const ANY = { latestOf: {} };

for (const scheme of SCHEMES) {
  describe(`restoreBackup of a snapshot on a ${scheme} storage`, () => {
    test("restoreBackup restores the folder although the snapshot's point is gone, and undo restores the state before", async (t) => {
      const { client, repository, folder, write } = await backupScene(t, scheme);
      linkSync(join(folder, "a.txt"), join(folder, "linked"));
      writeFileSync(join(folder, "large"), randomBytes(3 << 20));
      const { save_point_id: gone } = await client.createBackup(repository, { save: true });
      const wanted = walkDigests(folder);
      await client.save({ message: "later" });
      await client.runCleanup({ only: [gone] });
      write("a.txt", "changed\n");
      write("new/file", "new\n");
      rmSync(join(folder, "many/7"));
      rmSync(join(folder, "many/9"));
      write("many/9/inside", "a folder where a file was\n");
      const untouched = statSync(join(folder, "many/8"), { bigint: true });
      const present = walkDigests(folder).state;
      chmodSync(folder, 0o711);
      const planned = await client.restoreBackup(repository, "latest", { dryRun: true });
      assert.deepEqual(planned.changes, { created: 2, updated: 2, deleted: 4, metadata: 1 });
      assert.equal(walkDigests(folder).state, present);
      const restored = await client.restoreBackup(repository, "latest");
      assert.deepEqual(restored.changes, planned.changes);
      assert.deepEqual([restored.left_out, restored.proof?.metadata_equal], [[], true]);
      assert.notEqual(restored.proof?.receipt, null);
      assert.deepEqual(walkDigests(folder), wanted);
      assert.equal(lstatSync(join(folder, "a.txt")).ino, lstatSync(join(folder, "linked")).ino);
      const after = statSync(join(folder, "many/8"), { bigint: true });
      assert.deepEqual([after.ino, after.ctimeNs], [untouched.ino, untouched.ctimeNs]);
      const status = await client.status();
      assert.deepEqual([status.clean, status.head], [true, restored.restored_to]);
      assert.deepEqual((await client.verifyAll()).problems, []);
      await client.undo();
      assert.equal(walkDigests(folder).state, present);
      const again = await client.restoreBackup(repository, "latest", { proveFrom: "memory" });
      assert.deepEqual([restored.read_from, again.read_from], ["disk", "memory"]);
    });

    test("restoreBackup warns if the snapshot is of another folder and the restore would remove present entries", async (t) => {
      const { client, library, repository, folder, root } = await backupScene(t, scheme);
      const { snapshot } = await client.createBackup(repository, { save: true });
      const warned = async (into: Client, more: RestoreInPlaceOptions = {}): Promise<string[]> => {
        const warnings: string[] = [];
        const onWarning = (warning: string): void => void warnings.push(warning);
        await into.restoreBackup(repository, snapshot!.snapshot_id, { ...more, onWarning });
        return warnings.filter((each) => each.includes("is made equal to"));
      };
      const [full, empty] = [join(root, "full"), join(root, "empty")];
      for (const each of [full, empty]) mkdirSync(each);
      writeFileSync(join(full, "mine"), "mine");
      const there = await library.init(full);
      const [warning, ...others] = await warned(there, { dryRun: true });
      assert.ok(warning?.includes(`is of ${folder}: ${full} is made equal to it`), warning);
      assert.deepEqual(others, []);
      for (const more of [{ keepPresent: true }, { paths: ["a.txt"] }, ANY])
        assert.deepEqual(await warned(there, { ...more, dryRun: true }), []);
      assert.deepEqual(await warned(await library.init(empty)), []);
      assert.deepEqual(await warned(client), []);
    });

    test("restoreBackup keeps entries that the ignore rules of the snapshot's own workspace exclude", async (t) => {
      const { client, library, repository, root, write } = await backupScene(t, scheme);
      write(".cairnignore", "*.tmp\n");
      write("deep/.cairnignore", "/cache/\n");
      await client.save({ exclude: ["*.secret"] });
      await client.createBackup(repository);
      const other = join(root, "other");
      mkdirSync(join(other, "deep/cache"), { recursive: true });
      for (const name of ["a.tmp", "b.secret", "deep/cache/c", "old"]) writeFileSync(join(other, name), name);
      const theirs = await library.init(other);
      const { changes, proof, stored_bytes: stored } = await theirs.restoreBackup(repository, "latest", ANY);
      assert.equal(changes?.deleted, 1);
      assert.ok(proof !== null && stored! > 0);
      for (const name of ["a.tmp", "b.secret", "deep/cache/c"])
        assert.equal(readFileSync(join(other, name), "utf8"), name);
      assert.equal((await theirs.restoreBackup(repository, "latest", ANY)).changes?.updated, 0);
      // The point that the first call made is taken again.
      const kinds = (await theirs.history(undefined, 0, { all: true })).save_points.map(({ cause }) => cause.kind);
      assert.equal(kinds.filter((kind) => kind === "backup").length, 1);
      assert.deepEqual((await theirs.verifyAll()).problems, []);
    });

    test("restoreBackup restores only the chosen paths and fetches only missing content", async (t) => {
      const { client, library, repository, root, write } = await backupScene(t, scheme);
      for (let i = 0; i < 4; i++) write(`big/${i}`, randomBytes(200_000).toString("base64"));
      await client.createBackup(repository, { save: true });
      const other = join(root, "other");
      mkdirSync(join(other, "many"), { recursive: true });
      for (const name of ["many/extra", "a.txt", "keep"]) writeFileSync(join(other, name), name);
      const theirs = await library.init(other);
      await theirs.save();
      const { head } = await theirs.status();
      const some = await theirs.restoreBackup(repository, "latest", { ...ANY, paths: ["many"] });
      assert.deepEqual([some.changes?.created, some.changes?.deleted, some.proof], [50, 1, null]);
      assert.ok(some.stored_bytes! < 100_000, `${some.stored_bytes}`);
      assert.equal(readFileSync(join(other, "a.txt"), "utf8"), "a.txt");
      const fit = await theirs.restoreBackup(repository, "latest", { ...ANY, include: ["*.txt"], exclude: ["deep"] });
      assert.deepEqual([fit.changes?.updated, fit.changes?.deleted], [1, 0]);
      assert.equal(readFileSync(join(other, "a.txt"), "utf8"), "a\n");
      assert.equal((await theirs.status()).head, head);
      assert.deepEqual((await theirs.verifyAll()).problems, []);
      await theirs.undo();
      assert.equal(readFileSync(join(other, "a.txt"), "utf8"), "a.txt");
    });
  });
}

test("restoreBackup takes `latest` as the newest snapshot of its own folder unless `latestOf` names another", async (t) => {
  const { client, library, repository, folder, root, write } = await backupScene(t, "local");
  const own = await client.createBackup(repository, { save: true });
  const other = join(root, "other");
  mkdirSync(other);
  const theirs = await library.init(other);
  await assert.rejects(theirs.restoreBackup(repository, "latest"), {
    code: "not_found",
    message: `no snapshot of ${other}, so there is no latest one`,
  });
  writeFileSync(join(other, "theirs"), "theirs");
  const newest = await theirs.createBackup(repository, { save: true });
  write("a.txt", "changed\n");
  assert.equal((await client.restoreBackup(repository, "latest")).snapshot_id, own.snapshot?.snapshot_id);
  const target = join(root, "elsewhere");
  assert.equal(
    (await repository.restore("latest", target, { dryRun: true })).snapshot_id,
    newest.snapshot?.snapshot_id,
  );
  const chosen = { dryRun: true, latestOf: { paths: [folder] } };
  assert.equal((await repository.restore("latest", target, chosen)).snapshot_id, own.snapshot?.snapshot_id);
  assert.equal(
    (await client.restoreBackup(repository, "latest", { ...ANY, dryRun: true })).snapshot_id,
    newest.snapshot?.snapshot_id,
  );
});

test("restoreBackup changes neither folder nor history if the snapshot's content is damaged", async (t) => {
  const { client, library, repository, folder, root, place } = await backupScene(t, "local");
  writeFileSync(join(folder, "large"), randomBytes(100_000));
  await client.createBackup(repository, { save: true });
  damagePack(place, (size) => size >> 1, "largest");
  const other = join(root, "other");
  mkdirSync(other);
  writeFileSync(join(other, "mine"), "mine");
  const theirs = await library.init(other);
  await theirs.save();
  const before = (await theirs.history(undefined, 0, { all: true })).save_points.length;
  await assert.rejects(theirs.restoreBackup(repository, "latest", ANY), hasCode("damaged"));
  assert.equal(readFileSync(join(other, "mine"), "utf8"), "mine");
  assert.equal((await theirs.history(undefined, 0, { all: true })).save_points.length, before);
  assert.deepEqual((await theirs.doctor()).findings, []);
});

test("restoreBackup with keepPresent does not report the kept entries as differences", async (t) => {
  const { client, repository, write } = await backupScene(t, "local");
  await client.createBackup(repository, { save: true });
  write("extra", "kept\n");
  write("a.txt", "changed\n");
  const kept = await client.restoreBackup(repository, "latest", { keepPresent: true });
  assert.deepEqual([kept.changes?.updated, kept.left_out, kept.proof], [1, [], null]);
  assert.notEqual((await client.restoreBackup(repository, "latest")).proof, null);
});

/** Loses or spoils all packs of a workspace's own store. */
function losePacks({ client }: BackupScene, lose: (file: string) => void = rmSync): void {
  const data = join(client.controlDirectory, "store/data");
  for (const name of readdirSync(data, { recursive: true, encoding: "utf8" }))
    if (/\/[0-9a-f]{64}$/.test(name)) lose(join(data, name));
}

/** Flips a bit in each byte of a part of a file. */
function spoil(file: string, from: number, to: number): void {
  const bytes = readFileSync(file);
  chmodSync(file, 0o600);
  writeFileSync(
    file,
    bytes.map((byte, at) => (at >= from && at < to ? byte ^ 1 : byte)),
  );
}

for (const [how, lose, told] of [
  ["lost", rmSync, /missing or cut/],
  ["cut", (file: string) => truncateSync(file, 100), /missing or cut/],
  ["spoiled", (file: string) => spoil(file, 0, Infinity), /damaged/],
  ["flipped a bit in each of", (file: string) => spoil(file, 20, 21), /damaged/],
] as const) {
  test(`restoreBackup restores a snapshot completely if the workspace's store has ${how} its packs`, async (t) => {
    const scene = await backupScene(t, "local");
    const { client, repository, folder } = scene;
    await client.createBackup(repository, { save: true });
    const wanted = walkDigests(folder);
    losePacks(scene, lose);
    // All that was stored is needed.
    for (const name of readdirSync(folder)) rmSync(join(folder, name), { recursive: true });
    const warnings: string[] = [];
    const { proof, left_out: left } = await client.restoreBackup(repository, "latest", {
      onWarning: (message) => void warnings.push(message),
    });
    assert.deepEqual([proof?.metadata_equal, left], [true, []]);
    assert.match(warnings.join(), told);
    assert.deepEqual(walkDigests(folder), wanted);
    // The very same content is what older points lacked.
    assert.deepEqual((await client.verifyAll()).problems, []);
  });
}

test("restoreBackup restores a snapshot completely after a repair removed lost content from the store's index", async (t) => {
  const scene = await backupScene(t, "local");
  const { client, repository, folder } = scene;
  await client.createBackup(repository, { save: true });
  const wanted = walkDigests(folder);
  losePacks(scene);
  rmSync(join(folder, "deep"), { recursive: true });
  await client.doctor({ repair: true });
  assert.notEqual((await client.restoreBackup(repository, "latest")).proof, null);
  assert.deepEqual(walkDigests(folder), wanted);
  assert.deepEqual((await client.verifyAll()).problems, []);
});

test("restoreBackup gives no receipt if the folder has a further file which may not be read", async (t) => {
  if (!rightsCount()) {
    if (!runWithoutCapabilities(fileURLToPath(import.meta.url), "which may not be read")) t.skip("setpriv is missing");
    return;
  }
  const { client, repository, folder, write } = await backupScene(t, "local");
  await client.createBackup(repository, { save: true });
  write("closed", "of somebody else");
  chmodSync(join(folder, "closed"), 0);
  const restored = await client.restoreBackup(repository, "latest");
  assert.deepEqual([restored.proof, restored.read_again, restored.untold_files], [null, true, 0]);
  assert.deepEqual(
    restored.left_out.map(({ path, reason }) => [path, reason]),
    [["closed", "unreadable"]],
  );
});

test("restoreBackup stores a point's content although the store's index lists it in lost packs", async (t) => {
  const scene = await backupScene(t, "local");
  const { client, repository } = scene;
  const { save_point_id: gone } = await client.createBackup(repository, { save: true });
  await client.save({ message: "later" });
  await client.runCleanup({ only: [gone] });
  losePacks(scene);
  const { proof, stored_bytes: stored } = await client.restoreBackup(repository, "latest");
  assert.ok(proof !== null && stored! > 0, `${stored}`);
  assert.deepEqual((await client.verifyAll()).problems, []);
});

for (const mode of ["wal", "delete"] as const)
  test(`restoreBackup writes a database (${mode}) through SQLite that a program has open, and reads it again`, async (t) => {
    const { client, repository, folder, write } = await backupScene(t, "local");
    const file = join(folder, "app.db");
    makeDatabase(file, mode);
    const database = new DatabaseSync(file);
    t.after(() => database.close());
    for (let n = 1; n <= 3; n++) commit(database, n);
    await client.createBackup(repository, { save: true });
    for (let n = 4; n <= 9; n++) commit(database, n);
    write("a.txt", "later");
    await assert.rejects(client.restoreBackup(repository, "latest"), hasCode("refused"));
    assert.deepEqual([stateOf(database).one, readFileSync(join(folder, "a.txt"), "utf8")], [stateAfter(9), "later"]);
    const restored = await client.restoreBackup(repository, "latest", { throughSqlite: true });
    assert.deepEqual(stateOf(database), { one: stateAfter(3), two: stateAfter(3) });
    assert.deepEqual([restored.left_out, restored.read_again, restored.proof], [[], true, null]);
    assert.deepEqual(restored.through_sqlite, [{ path: "app.db", read_again: true }]);
    assert.equal(readFileSync(join(folder, "a.txt"), "utf8"), "a\n");
    commit(database, 10);
    await client.undo({ throughSqlite: true });
    assert.deepEqual(stateOf(database).one, stateAfter(9));
    assert.equal(database.prepare("PRAGMA integrity_check").get()!["integrity_check"], "ok");
  });

test("restoreBackup writes no database through SQLite if one of them has another page size or is encrypted", async (t) => {
  const { client, repository, folder } = await backupScene(t, "local");
  const [first, second] = [join(folder, "first.db"), join(folder, "second.db")];
  makeDatabase(first, "wal");
  makeDatabase(second, "wal", 1024);
  await client.createBackup(repository, { save: true });
  const open = new DatabaseSync(first);
  t.after(() => open.close());
  commit(open, 1);
  rmSync(second);
  makeDatabase(second, "wal", 8192);
  const other = new DatabaseSync(second);
  commit(other, 1);
  const restore = async (): Promise<unknown> => client.restoreBackup(repository, "latest", { throughSqlite: true });
  const before = readFileSync(`${second}-wal`);
  await assert.rejects(restore(), {
    code: "refused",
    message: /second\.db .* pages of 8192 bytes in WAL mode, .* pages of 1024/,
  });
  assert.deepEqual([stateOf(open).one, stateOf(other).one], [stateAfter(1), stateAfter(1)]);
  other.close();
  // A program that encrypts its database leaves the header of the log in plain.
  writeFileSync(second, randomBytes(8192));
  writeFileSync(`${second}-wal`, before);
  const fd = openSync(`${second}-wal`, "r+");
  t.after(() => closeSync(fd));
  await assert.rejects(restore(), {
    code: "refused",
    message: /second\.db .*its present file is no SQLite database, is encrypted/,
  });
  assert.deepEqual(stateOf(open).one, stateAfter(1));
});
