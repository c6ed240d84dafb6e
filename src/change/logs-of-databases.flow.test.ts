import assert from "node:assert/strict";
import { copyFileSync, readdirSync, renameSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test, type TestContext } from "node:test";
import { makeRepository } from "../backup/testing-repository.ts";
import { hasCode, testFolder } from "../keep/testing-folder.ts";

/** A database and the log that a killed program left beside it are one thing, whatever patterns say. */

const ROWS = 40;

/** A workspace with a database, all of whose rows are in its log. */
async function scene(t: TestContext, rules: string) {
  const made = await testFolder(t, { ".cairnignore": rules, "trip-journal": "a text" });
  const live = join(made.root, "live.db");
  const database = new DatabaseSync(live);
  t.after(() => database.close());
  database.exec("PRAGMA journal_mode = wal; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (v)");
  for (let i = 0; i < ROWS; i++) database.exec(`INSERT INTO t VALUES (${i})`);
  for (const ending of ["", "-wal"]) copyFileSync(`${live}${ending}`, join(made.folder, `x.db${ending}`));
  return made;
}

function rowsIn(bytes: Buffer | string, root: string): unknown {
  const file = typeof bytes === "string" ? bytes : join(root, "shown.db");
  if (typeof bytes !== "string") writeFileSync(file, bytes);
  const database = new DatabaseSync(file);
  try {
    assert.equal(database.prepare("PRAGMA integrity_check").get()!["integrity_check"], "ok");
    return database.prepare("SELECT count(*) AS n FROM t").get()!["n"];
  } finally {
    database.close();
  }
}

async function all(pieces: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const found: Uint8Array[] = [];
  for await (const piece of pieces) found.push(piece);
  return Buffer.concat(found);
}

test("a rule that matches only the log of a database does not part it from the database", async (t) => {
  const { client, root } = await scene(t, "*-wal\n*-journal\n");
  const { save_point_id: target, labels } = await client.save();
  const names = (await client.show(target)).entries.map(({ path }) => path);
  assert.deepEqual(names, [".cairnignore", "x.db", "x.db-wal"]);
  assert.match(labels[0]!.reason!, /no process uses the log or journal beside it/);
  await client.restore({ target, to: join(root, "back") });
  assert.equal(rowsIn(join(root, "back/x.db"), root), ROWS);
});

test("a rule that matches only a database takes its log with it", async (t) => {
  const { client } = await scene(t, "*.db\n");
  const { save_point_id: target } = await client.save();
  const names = (await client.show(target)).entries.map(({ path }) => path);
  assert.deepEqual(names, [".cairnignore", "trip-journal"]);
});

test("read gives a database of a point with its log applied, also a range of it", async (t) => {
  const { client, root } = await scene(t, "");
  await client.save();
  const image = await all(client.read("latest", "x.db"));
  assert.equal(rowsIn(image, root), ROWS);
  const range = await all(client.read("latest", "x.db", { offset: 100, length: 5000 }));
  assert.deepEqual(range, image.subarray(100, 5100));
  assert.equal((await all(client.read("latest", "trip-journal"))).toString(), "a text");
  assert.deepEqual(readdirSync(join(client.controlDirectory, "tmp")), []);
});

test("a snapshot shows a database with its log applied, and patterns choose or leave out both", async (t) => {
  const { client, library, root } = await scene(t, "");
  const place = { repository: join(root, "repository"), password: "x" };
  await makeRepository(place);
  const repository = await library.openRepository(place);
  t.after(() => repository.close());
  await client.createBackup(repository);
  assert.equal(rowsIn(await all(repository.read("latest", "x.db")), root), ROWS);
  const restored = async (name: string, choice: object): Promise<string[]> => {
    await repository.restore("latest", join(root, name), choice);
    return readdirSync(join(root, name)).toSorted();
  };
  assert.deepEqual(await restored("a", { include: ["*.db"] }), ["x.db", "x.db-wal"]);
  assert.equal(rowsIn(join(root, "a/x.db"), root), ROWS);
  assert.deepEqual(await restored("b", { include: ["*-wal"] }), ["x.db", "x.db-wal"]);
  assert.deepEqual(await restored("c", { exclude: ["*-wal", "*-journal"] }), [".cairnignore", "x.db", "x.db-wal"]);
  assert.deepEqual(await restored("d", { exclude: ["*.db"] }), [".cairnignore", "trip-journal"]);
});

test("a link in the place of the control directory's temporary folder is refused", async (t) => {
  const { client, root, folder } = await scene(t, "");
  await client.save();
  const temporary = join(client.controlDirectory, "tmp");
  renameSync(temporary, join(root, "elsewhere"));
  symlinkSync(join(root, "elsewhere"), temporary);
  writeFileSync(join(folder, "more"), "more");
  await assert.rejects(client.save(), hasCode("refused"));
});
