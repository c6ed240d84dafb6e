import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { copyFileSync, existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test, type TestContext } from "node:test";
import { LiveDatabases } from "../capture/sqlite/live-databases.ts";
import { makeRepository } from "../backup/testing-repository.ts";
import type { CairnError } from "../errors.ts";
import { commit, commitsIn, makeDatabase, stateAfter, stateOf, Writer } from "../capture/sqlite/testing-writer.ts";
import { testFolder } from "../keep/testing-folder.ts";

async function scene(t: TestContext) {
  const made = await testFolder(t, { "notes.txt": "one" });
  const file = join(made.folder, "app.db");
  makeDatabase(file, "wal");
  return { ...made, file, writer: await Writer.start(t, file) };
}

test("a point contains a database as after a transaction while a program writes", async (t) => {
  const { client, root, writer } = await scene(t);
  for (let i = 0; i < 3; i++) {
    const before = await writer.commits();
    const point = await client.save();
    const after = await writer.commits();
    assert.equal(point.complete, true);
    assert.deepEqual(point.labels, [{ path: "app.db", label: "transaction-consistent" }]);
    const back = join(root, `back-${i}`);
    await client.restore({ target: point.save_point_id, to: back });
    const held = commitsIn(join(back, "app.db"));
    assert.ok(before <= held && held <= after + 1, `${before} <= ${held} <= ${after}`);
  }
  await writer.stop();
});

test("a save of an unused, unchanged database reports no change and leaves no log", async (t) => {
  const { client, folder, writer } = await scene(t);
  await client.save();
  await writer.stop();
  await client.save();
  const again = await client.save();
  assert.equal(again.unchanged, true);
  assert.deepEqual(again.labels, [{ path: "app.db", label: "transaction-consistent" }]);
  assert.deepEqual(readdirSync(folder).toSorted(), ["app.db", "notes.txt"]);
  assert.ok(statSync(join(folder, "app.db")).size > 0 && readFileSync(join(folder, "notes.txt"), "utf8") === "one");
});

for (const whose of ["its own", "another database's"])
  test(`save and restore keep a database's log that no process has open unchanged, if the log is ${whose}`, async (t) => {
    const { client, root, folder } = await testFolder(t, { "notes.txt": "one" });
    const [live, other] = [join(root, "live.db"), join(root, "other.db")];
    for (const file of [live, other]) makeDatabase(file, "wal");
    const writer = new DatabaseSync(live);
    for (let n = 1; n <= 9; n++) commit(writer, n);
    const file = join(folder, "app.db");
    const foreign = new DatabaseSync(other);
    foreign.exec("CREATE TABLE mine (x); PRAGMA wal_checkpoint(TRUNCATE)");
    foreign.close();
    copyFileSync(whose === "its own" ? live : other, file);
    copyFileSync(`${live}-wal`, `${file}-wal`);
    writer.close();
    const files = [file, `${file}-wal`];
    const before = files.map((each) => readFileSync(each));
    const point = await client.save();
    await client.save({ databases: "copy" });
    assert.deepEqual(
      files.map((each) => readFileSync(each)),
      before,
    );
    assert.deepEqual(readdirSync(folder).toSorted(), ["app.db", "app.db-wal", "notes.txt"]);
    assert.equal(point.labels[0]!.path, "app.db");
    const back = join(root, "back");
    await client.restore({ target: point.save_point_id, to: back });
    assert.deepEqual(
      ["app.db", "app.db-wal"].map((name) => readFileSync(join(back, name))),
      before,
    );
    if (whose === "its own") assert.equal(commitsIn(join(back, "app.db")), 9);
  });

/** Two states of a database that this process has open, the older one saved. */
async function openScene(t: TestContext) {
  const made = await testFolder(t, { "notes.txt": "one" });
  const file = join(made.folder, "app.db");
  makeDatabase(file, "wal");
  const writer = await Writer.start(t, file);
  const saved = await made.client.save();
  const then = await writer.commits();
  while ((await writer.commits()) <= then);
  made.write("notes.txt", "two");
  return { ...made, file, writer, saved };
}

test("a restore fails and names the process if it would replace a database that the process has open", async (t) => {
  const { client, folder, file, writer, saved } = await openScene(t);
  const { pid } = writer.child;
  await assert.rejects(client.restore({ target: saved.save_point_id }), (error: CairnError) => {
    assert.equal(error.code, "refused");
    assert.match(error.message, new RegExp(`^the SQLite database app\\.db is open in \\S+ \\(pid ${pid}\\)`));
    assert.match(error.hint ?? "", /--through-sqlite/);
    return true;
  });
  assert.equal(readFileSync(join(folder, "notes.txt"), "utf8"), "two");
  await writer.stop();
  await client.restore({ target: saved.save_point_id });
  assert.equal(readFileSync(join(folder, "notes.txt"), "utf8"), "one");
  commitsIn(file);
});

test("a program sees the restored content if the restore writes its open database through SQLite", async (t) => {
  const { client, folder, write } = await testFolder(t, { "notes.txt": "one" });
  makeDatabase(join(folder, "app.db"), "wal");
  const database = new DatabaseSync(join(folder, "app.db"));
  t.after(() => database.close());
  commit(database, 1);
  const { save_point_id: target } = await client.save();
  commit(database, 2);
  write("notes.txt", "two");
  await assert.rejects(client.restore({ target }), { code: "refused" });
  const { left_out } = await client.restore({ target, throughSqlite: true });
  assert.deepEqual(left_out, []);
  assert.deepEqual(stateOf(database).one, stateAfter(1));
  assert.equal(readFileSync(join(folder, "notes.txt"), "utf8"), "one");
  await client.undo({ throughSqlite: true });
  assert.deepEqual(stateOf(database).one, stateAfter(2));
  await client.redo({ throughSqlite: true });
  assert.deepEqual(stateOf(database).one, stateAfter(1));
  commit(database, 3);
  // Without the option a database that is in use stays, whatever else is undone.
  const kept = await client.undo();
  assert.ok(kept.left_out.every(({ path, reason }) => path.startsWith("app.db") && reason === "changed_since"));
  assert.deepEqual([kept.left_out.length > 0, stateOf(database).one[3]], [true, 3]);
  await client.restore({ target: kept.restored_to!, paths: ["app.db"], throughSqlite: true });
  assert.deepEqual(stateOf(database).one, stateAfter(2));
  assert.equal(database.prepare("PRAGMA integrity_check").get()!["integrity_check"], "ok");
});

test("undo and redo write a database through SQLite as their operation did, unless a row was written since", async (t) => {
  const { client, folder } = await testFolder(t);
  makeDatabase(join(folder, "app.db"), "wal");
  const [database, reader] = [0, 1].map(() => new DatabaseSync(join(folder, "app.db"))) as [DatabaseSync, DatabaseSync];
  t.after(() => reader.close());
  commit(database, 1);
  const { save_point_id: target } = await client.save();
  commit(database, 2);
  await client.restore({ target, throughSqlite: true });
  for (const [verb, newest] of [
    ["undo", 2],
    ["redo", 1],
  ] as const) {
    assert.deepEqual((await client[verb]()).left_out, []);
    assert.deepEqual(stateOf(reader).one, stateAfter(newest));
  }
  commit(database, 7);
  const { left_out: left, changes } = await client.undo();
  assert.deepEqual([new Set(left.map(({ reason }) => reason)), changes!.updated], [new Set(["changed_since"]), 0]);
  assert.equal(stateOf(reader).one.includes(7), true);
  database.close();
});

test("undo lists a database that was restored into the log of a program that was killed, and undo with over writes it", async (t) => {
  const { client, folder } = await testFolder(t);
  const [file, log] = [join(folder, "app.db"), join(folder, "app.db-wal")];
  makeDatabase(file, "wal");
  const database = new DatabaseSync(file);
  commit(database, 1);
  database.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  const { save_point_id: target } = await client.save();
  commit(database, 2);
  database.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  await client.restore({ target, throughSqlite: true });
  const left = [file, log].map((each) => [each, readFileSync(each)] as const);
  database.close();
  for (const [each, bytes] of left) writeFileSync(each, bytes);
  const { left_out: stays, undo_id: undoId } = await client.undo();
  assert.deepEqual([stays.map(({ path, reason }) => [path, reason]), undoId], [[["app.db", "changed_since"]], null]);
  assert.deepEqual((await client.undo({ over: true })).left_out, []);
  assert.equal(commitsIn(file), 2);
});

test("a save stores only the changed parts of a large database", async (t) => {
  const { client, folder } = await testFolder(t);
  const database = new DatabaseSync(join(folder, "app.db"));
  t.after(() => database.close());
  database.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, content BLOB)");
  const insert = database.prepare("INSERT INTO t VALUES (?, ?)");
  for (let id = 0; id < 2000; id++) insert.run(id, randomBytes(3000));
  await client.save();
  const update = database.prepare("UPDATE t SET content = ? WHERE id = ?");
  // Of those that lie far apart each has a chunk of its own where they are cut by content, of about a MiB.
  for (const id of [10, 700, 1400, 1990]) update.run(randomBytes(3000), id);
  const { bytes_stored: stored } = await client.save();
  assert.ok(stored < 5 * 80_000, String(stored));
});

test("a snapshot of several folders contains a database as after a transaction while a program writes", async (t) => {
  const { library, root, folder, writer } = await scene(t);
  const repository = await library.initRepository({ repository: join(root, "repository"), password: "x" });
  t.after(async () => repository.close());
  const before = await writer.commits();
  makeDatabase(join(root, "other.db"), "delete");
  const paths = [folder, join(root, "state"), join(root, "other.db")];
  const { snapshot, left_out: left, labels } = await repository.createFromPaths(paths);
  const after = await writer.commits();
  assert.deepEqual(left, []);
  assert.deepEqual(
    labels.map(({ path: place, label, reason }) => [place, label, reason?.slice(0, 30)]),
    [
      [join(folder, "app.db"), "transaction-consistent", "each consistent, not together:"],
      [join(root, "other.db"), "transaction-consistent", undefined],
    ],
  );
  await repository.restore(snapshot!.snapshot_id, join(root, "back"), { subfolder: folder });
  const held = commitsIn(join(root, "back", "app.db"));
  assert.ok(before <= held && held <= after + 1, `${before} <= ${held} <= ${after}`);
  await writer.stop();
});

/** A database whose rows name files beside it, and what another program does right after it was captured. */
async function attachedScene(t: TestContext, meanwhile: (of: { database: DatabaseSync; folder: string }) => void) {
  const made = await testFolder(t, { "files/one": "1", "files/two": "2" });
  const database = new DatabaseSync(join(made.folder, "mail.db"));
  t.after(() => database.close());
  database.exec("PRAGMA journal_mode = wal; CREATE TABLE t (file TEXT); INSERT INTO t VALUES ('one'), ('two')");
  const hold = LiveDatabases.prototype.hold;
  let isFirst = true;
  t.mock.method(
    LiveDatabases.prototype,
    "hold",
    async function (this: LiveDatabases, ...given: Parameters<typeof hold>) {
      const held = await hold.apply(this, given);
      if (isFirst) meanwhile({ database, folder: made.folder });
      isFirst = false;
      return held;
    },
  );
  return made;
}

function filesNamed(file: string): unknown[] {
  const database = new DatabaseSync(file);
  try {
    return database
      .prepare("SELECT file FROM t ORDER BY file")
      .all()
      .map((row) => row["file"]);
  } finally {
    database.close();
  }
}

test("a save with --with captures the database before it reads the files that its rows name, so that none is missing", async (t) => {
  const { client, root } = await attachedScene(t, ({ database, folder }) => {
    writeFileSync(join(folder, "files/three"), "3");
    database.exec("INSERT INTO t VALUES ('three')");
  });
  const point = await client.save({ with: ["mail.db=files"] });
  assert.deepEqual([point.complete, point.left_out], [true, []]);
  await client.restore({ target: point.save_point_id, to: join(root, "back") });
  assert.deepEqual(filesNamed(join(root, "back/mail.db")), ["one", "two"]);
  assert.deepEqual(readdirSync(join(root, "back/files")).toSorted(), ["one", "three", "two"]);
});

test("a save with --with lists a file that was deleted after its database was captured", async (t) => {
  const { client } = await attachedScene(t, ({ folder }) => rmSync(join(folder, "files/two")));
  const { complete, left_out: left } = await client.save({ with: ["mail.db=files"] });
  assert.deepEqual([complete, left.map(({ path, reason }) => [path, reason])], [false, [["files/two", "changing"]]]);
  assert.match(left[0]!.detail ?? "", /was removed after mail\.db had been captured, and before Cairn read it/);
});

test("a save fails if --with names a missing database or a file that is not a database", async (t) => {
  const { client } = await testFolder(t, { "files/one": "1", "text.db": "no database" });
  await assert.rejects(client.save({ with: ["text.db=files"] }), { code: "usage" });
  await assert.rejects(client.save({ with: ["mail.db"] }), { code: "usage" });
  await assert.rejects(client.save({ with: ["text.db=nothing"] }), { code: "not_found" });
  assert.equal(await client.hasSavePoints(), false);
});

/** A saved database that is gone, and beside it the log that a program which was killed has left. */
async function logLeft(t: TestContext) {
  const made = await testFolder(t, { "notes.txt": "one" });
  const [file, log] = [join(made.folder, "app.db"), join(made.folder, "app.db-wal")];
  makeDatabase(file, "wal");
  const { save_point_id: target } = await made.client.save();
  const database = new DatabaseSync(file);
  commit(database, 1);
  const left = readFileSync(log);
  database.close();
  rmSync(file);
  writeFileSync(log, left);
  assert.ok(left.length > 0);
  return { ...made, file, log, left, target };
}

test("a restore of only a database removes the foreign log beside the database, and undo restores the log", async (t) => {
  const { client, file, log, left, target } = await logLeft(t);
  const { entries } = await client.planRestore({ target, paths: ["app.db"] });
  assert.deepEqual(
    entries.map(({ path, action }) => [path, action]),
    [
      ["app.db", "create"],
      ["app.db-wal", "delete"],
    ],
  );
  await client.restore({ target, paths: ["app.db"] });
  assert.equal(existsSync(log), false);
  assert.equal(commitsIn(file), 0);
  rmSync(file);
  writeFileSync(log, left);
  await client.restore({ target, paths: ["app.db"] });
  await client.undo();
  assert.deepEqual([existsSync(file), readFileSync(log).equals(left)], [false, true]);
});

test("a restore with keepPresent fails if the log that stays would damage the database", async (t) => {
  const { client, file, log, left, target } = await logLeft(t);
  await assert.rejects(client.restore({ target, keepPresent: true }), (error: CairnError) => {
    assert.equal(error.code, "refused");
    assert.match(error.message, /^app\.db-wal holds changes of the present database/);
    return true;
  });
  assert.deepEqual([existsSync(file), readFileSync(log).equals(left)], [false, true]);
  rmSync(log);
  await client.restore({ target, keepPresent: true });
  assert.equal(commitsIn(file), 0);
});

test("a snapshot restored over a folder leaves out a database that has a foreign log beside it", async (t) => {
  const { client, library, folder, file, log, target, root } = await logLeft(t);
  const place = { repository: join(root, "repository"), password: "x" };
  await makeRepository(place);
  const repository = await library.openRepository(place);
  t.after(() => repository.close());
  await client.createBackup(repository, { point: target });
  const put = async (): Promise<string[][]> => {
    const { left_out: left } = await repository.restore("latest", folder, { overwrite: "always" });
    return left.map(({ path, reason }) => [path, reason]);
  };
  assert.deepEqual(await put(), [["app.db", "keep_present"]]);
  assert.equal(existsSync(file), false);
  rmSync(log);
  assert.deepEqual(await put(), []);
  assert.equal(commitsIn(file), 0);
  const alone = join(root, "alone");
  await client.restore({ target, paths: ["app.db"], to: alone });
  assert.deepEqual(readdirSync(alone), ["app.db"]);
});
