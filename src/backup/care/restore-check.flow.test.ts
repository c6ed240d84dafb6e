import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import {
  closeSync,
  copyFileSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { walkDigests } from "../../workspace/store/testing-walk.ts";
import { backupScene, damagePack, SCHEMES } from "../testing-far.ts";

function makeDatabase(path: string): void {
  const database = new DatabaseSync(path);
  database.exec("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT); CREATE INDEX i ON t (b)");
  const insert = database.prepare("INSERT INTO t (b) VALUES (?)");
  for (let i = 0; i < 2000; i++) insert.run(`row ${i} ${"x".repeat(50)}`);
  database.close();
}

for (const scheme of SCHEMES) {
  test(`a restore check on a ${scheme} storage names damaged databases and leaves no files`, async (t) => {
    const { client, repository, folder, root, write } = await backupScene(t, scheme);
    makeDatabase(join(folder, "sound.db"));
    write("no-database", "SQLite format 4");
    await client.createBackup(repository, { save: true });
    const wanted = walkDigests(folder).state;
    makeDatabase(join(folder, "deep/broken.db"));
    const fd = openSync(join(folder, "deep/broken.db"), "r+");
    writeSync(fd, randomBytes(3000), 0, 3000, 5 * 4096 + 10);
    closeSync(fd);
    const { snapshots } = await repository.list();
    const sound = await repository.verify({ restoreCheck: true, scratch: join(root, "scratch") });
    assert.deepEqual([sound.problems, sound.restored.length], [[], 1]);
    assert.deepEqual([sound.restored[0]?.state_digest, sound.restored[0]?.databases.length], [wanted, 1]);
    await client.createBackup(repository, { save: true });
    const broken = await repository.verify({ restoreCheck: true, scratch: join(root, "scratch") });
    assert.deepEqual(
      broken.problems.map(({ kind, severity, losses }) => [kind, severity, losses.map(({ path }) => path)]),
      [["database_damaged", "damage", ["deep/broken.db"]]],
    );
    assert.equal(broken.restored[0]?.databases.length, 2);
    // What was asked for by name is restored, not the newest.
    const named = await repository.verify({ snapshots: [snapshots[0]!.snapshot_id], quick: true, restoreCheck: true });
    assert.deepEqual([named.problems, named.restored[0]?.snapshot_id], [[], snapshots[0]!.snapshot_id]);
    assert.deepEqual(readdirSync(join(root, "scratch")), []);
  });
}

/** A database as a program has it open: a page of it is only in its write-ahead log. */
function makeOpenDatabase(path: string, to: string): void {
  const database = new DatabaseSync(path);
  database.exec("CREATE TABLE t (a INTEGER); PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0");
  database.exec("INSERT INTO t VALUES (1)");
  for (const ending of ["", "-wal", "-shm"]) copyFileSync(`${path}${ending}`, `${to}${ending}`);
  database.close();
  writeFileSync(to, readFileSync(to).fill(1, 4096, 8192));
}

test("a restore check opens each database with its write-ahead log, and checks all later databases", async (t) => {
  const { client, repository, folder, root } = await backupScene(t, "local");
  makeOpenDatabase(join(root, "live.db"), join(folder, "app.db"));
  makeDatabase(join(folder, "app.db-z"));
  const fd = openSync(join(folder, "app.db-z"), "r+");
  writeSync(fd, randomBytes(3000), 0, 3000, 5 * 4096 + 10);
  closeSync(fd);
  await client.createBackup(repository, { save: true });
  const { problems, restored } = await repository.verify({ restoreCheck: true });
  assert.deepEqual(
    problems.map(({ kind, losses }) => [kind, losses[0]?.path]),
    [["database_damaged", "app.db-z"]],
  );
  assert.equal(restored[0]?.databases.length, 2);
});

test("a restore check checks a database whose path is longer than PATH_MAX", async (t) => {
  const { client, repository, folder, root } = await backupScene(t, "local");
  makeDatabase(join(root, "sound.db"));
  const names = Array.from({ length: 60 }, () => "d".repeat(90));
  const before = process.cwd();
  t.after(() => process.chdir(before));
  process.chdir(folder);
  for (const name of names) {
    mkdirSync(name);
    process.chdir(name);
  }
  copyFileSync(join(root, "sound.db"), "deep.db");
  writeFileSync("broken.db", readFileSync("deep.db").fill(1, 5 * 4096, 6 * 4096));
  process.chdir(before);
  await client.createBackup(repository, { save: true });
  const { problems, restored } = await repository.verify({ restoreCheck: true, scratch: join(root, "scratch") });
  assert.deepEqual(
    problems.map(({ kind, losses }) => [kind, losses[0]?.path]),
    [["database_damaged", [...names, "broken.db"].join("/")]],
  );
  assert.equal(restored[0]?.databases.length, 2);
  assert.deepEqual(readdirSync(join(root, "scratch")), []);
});

test("a quick verify with a restore check names content that a restore would miss", async (t) => {
  const { client, repository, folder, place } = await backupScene(t, "local");
  writeFileSync(join(folder, "large"), randomBytes(100_000));
  await client.createBackup(repository, { save: true });
  damagePack(place, (size) => size >> 1, "largest");
  assert.deepEqual((await repository.verify({ quick: true })).problems, []);
  const { problems, restored } = await repository.verify({ quick: true, restoreCheck: true });
  assert.deepEqual(
    problems.map(({ kind, losses }) => [kind, losses[0]?.path]),
    [["restore_incomplete", "large"]],
  );
  assert.equal(restored[0]?.state_digest, null);
});

test("a restore check of an empty repository restores nothing", async (t) => {
  const { repository } = await backupScene(t, "local");
  const { problems, restored } = await repository.verify({ restoreCheck: true });
  assert.deepEqual([problems, restored], [[], []]);
});

test("a drill restores the newest snapshot of each host and folder", async (t) => {
  const { client, repository } = await backupScene(t, "local");
  for (const hostname of ["one", "two", "two"]) await client.createBackup(repository, { save: true, hostname });
  const { restored, problems } = await repository.drill();
  assert.deepEqual([restored.map(({ hostname }) => hostname).toSorted(), problems], [["one", "two"], []]);
});
