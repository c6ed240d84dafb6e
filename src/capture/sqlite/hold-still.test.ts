import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test, type TestContext } from "node:test";
import { LiveDatabases } from "./live-databases.ts";
import { makeDatabase } from "./testing-writer.ts";

const WRITE = "BEGIN IMMEDIATE; UPDATE one SET n = n + 1; COMMIT";

/** A database with a log and one without, which this process has open; nobody waits for a lock. */
function scene(t: TestContext): { folder: string; paths: Buffer[]; open: DatabaseSync[]; databases: LiveDatabases } {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-still-"));
  const names = ["wal", "delete"] as const;
  for (const mode of names) makeDatabase(path.join(folder, mode), mode);
  const open = names.map((name) => new DatabaseSync(path.join(folder, name), { timeout: 0 }));
  for (const each of open) each.exec(WRITE);
  const databases = new LiveDatabases();
  t.after(async () => {
    for (const each of open) each.close();
    await databases.close();
    fs.rmSync(folder, { recursive: true });
  });
  return { folder, paths: names.map((name) => Buffer.from(path.join(folder, name))), open, databases };
}

test("databases that are held still can be read but not written until their release", async (t) => {
  const { folder, paths, open, databases } = scene(t);
  const before = fs.readdirSync(folder);
  const { held, release } = await databases.still(paths, { budgetMs: 60_000 });
  assert.deepEqual(held, [0, 1]);
  for (const each of open) {
    assert.throws(() => each.exec(WRITE), /locked/);
    if (each.isTransaction) each.exec("ROLLBACK");
    assert.equal(each.prepare("SELECT count(*) AS n FROM one").get()!["n"], 40);
  }
  assert.equal(await release(), true);
  for (const each of open) each.exec(WRITE);
  assert.deepEqual(fs.readdirSync(folder), before);
});

test("databases are released when their time is over, and `release` then returns false", async (t) => {
  const { paths, open, databases } = scene(t);
  const { held, release } = await databases.still(paths, { budgetMs: 150 });
  assert.deepEqual(held, [0, 1]);
  for (let isOver = false; !isOver;) {
    try {
      open[0]!.exec(WRITE);
      isOver = true;
    } catch {
      await new Promise((resolve) => void setImmediate(resolve));
    }
  }
  assert.equal(await release(), false);
});

test("a database with a running write transaction is not waited for, and no other one is held", async (t) => {
  const { paths, open, databases } = scene(t);
  open[0]!.exec("BEGIN IMMEDIATE; UPDATE one SET n = 5");
  const { held, release } = await databases.still(paths, { budgetMs: 150 });
  assert.deepEqual([held, await release()], [[], false]);
  open[1]!.exec(WRITE);
  open[0]!.exec("COMMIT");
});

test("a database that no process has open is held still without a lock file", async (t) => {
  const { folder, open, databases } = scene(t);
  for (const each of open) each.close();
  open.length = 0;
  const alone = Buffer.from(path.join(folder, "wal"));
  const gone = Buffer.from(path.join(folder, "gone"));
  const { held, release } = await databases.still([alone, gone], { budgetMs: 60_000 });
  assert.deepEqual([held, await release()], [[0], true]);
  assert.deepEqual(fs.readdirSync(folder), ["delete", "wal"]);
});
