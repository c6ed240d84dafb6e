import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { buildCommand, cairnOk, SCRATCH } from "../fixtures/command.ts";

const ROWS = 24_000;
const CHANGED = 240;

/** Saves a folder by the library in a process of its own. Returns processor time in microseconds. */
function saveAlone(folder: string): { main: number; all: number } {
  const library = path.join(path.dirname(buildCommand()), "index.js");
  const script = `
    const { openOrInit } = await import(${JSON.stringify(library)});
    const client = await openOrInit(${JSON.stringify(folder)});
    const [main, all] = [process.threadCpuUsage(), process.cpuUsage()];
    await client.save();
    console.log(JSON.stringify({ main: process.threadCpuUsage(main).user, all: process.cpuUsage(all).user }));
    await client.close();
  `;
  const said = execFileSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8" });
  return JSON.parse(said) as { main: number; all: number };
}

const contentOf = (database: DatabaseSync): unknown[] =>
  database.prepare("SELECT id, hex(substr(v, 1, 9)) AS v FROM t").all();

test("a save reads a large database in use in other threads than the caller's, and a restore has all of its rows", () => {
  const folder = path.join(SCRATCH, "large-database");
  fs.mkdirSync(folder);
  const live = new DatabaseSync(path.join(folder, "live.db"));
  try {
    live.exec("PRAGMA journal_mode = wal; PRAGMA synchronous = off; CREATE TABLE t (id INTEGER PRIMARY KEY, v); BEGIN");
    const insert = live.prepare("INSERT INTO t VALUES (?, ?)");
    for (let id = 0; id < ROWS; id++) insert.run(id, randomBytes(3700));
    live.exec("COMMIT");
    cairnOk(["save", folder]);
    const update = live.prepare("UPDATE t SET v = ? WHERE id = ?");
    for (let row = 0; row < CHANGED; row++) update.run(randomBytes(3700), row * (ROWS / CHANGED));
    const { main, all } = saveAlone(folder);
    assert.ok(main < all / 2, `${main} of ${all} µs of processor time in the caller's thread`);
    const back = path.join(SCRATCH, "large-database-back");
    cairnOk(["restore", "latest", "--to", back, "-C", folder]);
    const restored = new DatabaseSync(path.join(back, "live.db"), { readOnly: true });
    try {
      assert.deepEqual(restored.prepare("PRAGMA integrity_check").all(), [{ __proto__: null, integrity_check: "ok" }]);
      assert.deepEqual(contentOf(restored), contentOf(live));
    } finally {
      restored.close();
    }
    cairnOk(["verify", "--deep", "-C", folder]);
  } finally {
    live.close();
  }
});
