import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { cairn, SCRATCH } from "../fixtures/command.ts";
import { backup, newRepository, noRestic, restic } from "../fixtures/repository.ts";
import { clientOf, newFolder, resticCheck } from "../fixtures/work.ts";

/** The script of docs/formats/sqlite-pages.md and real restic, without Cairn. */

const noPython = spawnSync("python3", ["--version"]).error === undefined ? false : "python3 is not installed";
const PAGE = new URL("../../docs/formats/sqlite-pages.md", import.meta.url);
const SCRIPT = /```python\n([\s\S]*?)```/.exec(fs.readFileSync(PAGE, "utf8"))![1]!;

test(
  "the script in the docs rebuilds a database that was stored page by page from a restore by restic",
  { skip: noRestic || noPython },
  async () => {
    assert.ok(SCRIPT.trimEnd().split("\n").length <= 40);
    const place = await newRepository("pages");
    const folder = newFolder("databases");
    fs.mkdirSync(path.join(folder, "data"));
    const database = path.join(folder, "data", "large.db");
    const write = (...statements: string[]): void => {
      const open = new DatabaseSync(database);
      for (const each of ["PRAGMA synchronous = OFF", ...statements]) open.exec(each);
      open.close();
    };
    write(
      "CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT, content BLOB)",
      `WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < 23000)
       INSERT INTO t SELECT id, 'row ' || id, zeroblob(2000) || hex(randomblob(500)) FROM n`,
    );
    assert.ok(fs.statSync(database).size > 64 * 1024 * 1024);
    const sizes: number[] = [];
    const stored = (): string[] => {
      const { databases, added } = backup(place, "create", "-C", folder).data as {
        databases: { stored: string }[];
        added: { tree_blobs: number; bytes: number };
      };
      sizes.push(added.bytes);
      return databases.map((each) => each.stored);
    };
    assert.deepEqual(stored(), ["base"]);
    write("UPDATE t SET text = 'changed' WHERE id % 1000 = 7");
    assert.deepEqual(stored(), ["delta"]);
    // 23 pages: the list of the blobs of all others, 32 bytes each in hex, is not stored again.
    assert.ok(sizes.at(-1)! < 23 * 4096 + 1100 * 64, String(sizes));
    write("DELETE FROM t WHERE id BETWEEN 500 AND 700", "INSERT INTO t (text) VALUES ('more')");
    assert.deepEqual(stored(), ["delta"]);
    restic(place, "check", "--read-data");
    const target = path.join(SCRATCH, "restic-restored");
    restic(place, "restore", "latest", "--target", target);
    const rebuilt = path.join(target, folder);
    assert.ok(!fs.existsSync(path.join(rebuilt, "data/large.db")));
    const run = (): ReturnType<typeof spawnSync> => spawnSync("python3", ["-c", SCRIPT, target, rebuilt]);
    const done = run();
    assert.equal(done.status, 0, String(done.stderr));
    assert.ok(fs.readFileSync(path.join(rebuilt, "data/large.db")).equals(fs.readFileSync(database)));
    const again = path.join(SCRATCH, "cairn-restored");
    const { proof } = backup(place, "restore", "latest", "--to", again).data as { proof: { metadata_equal: boolean } };
    assert.equal(proof.metadata_equal, true);
    execFileSync("cmp", [path.join(again, "data/large.db"), database]);
    // The script finds what is wrong, too.
    fs.rmSync(path.join(rebuilt, "data/large.db"));
    const [name] = fs.readdirSync(path.join(target, ".cairn/databases"));
    const base = fs.openSync(path.join(target, ".cairn/databases", name!, "base/pages"), "r+");
    fs.writeSync(base, "x", 40_000_000);
    fs.closeSync(base);
    assert.match(String(run().stderr), /AssertionError/);
    assert.equal(cairn(["backup", "verify", ...place.options]).status, 0);
  },
);

test(
  "the script rebuilds the database of a save point, which restic restores from the workspace's store",
  { skip: noRestic || noPython },
  async () => {
    const folder = newFolder("point-databases");
    const file = path.join(folder, "a.db");
    const database = new DatabaseSync(file);
    database.exec(
      `CREATE TABLE t (id INTEGER PRIMARY KEY, content BLOB);
       WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < 500)
       INSERT INTO t SELECT id, randomblob(3900) FROM n`,
    );
    const client = await clientOf(folder);
    for (let id = 1; id <= 3; id++) {
      database.exec(`UPDATE t SET content = randomblob(3900) WHERE id % 100 = ${id}`);
      await client.save();
    }
    database.close();
    const place = {
      env: { ...process.env, RESTIC_PASSWORD_FILE: path.join(client.controlDirectory, "store-password") },
    };
    const target = path.join(SCRATCH, "point-restored");
    const asked = ["-r", path.join(client.controlDirectory, "store"), "--no-cache", "restore", "latest"];
    execFileSync("restic", [...asked, "--target", target], { ...place, stdio: "ignore" });
    const rebuilt = path.join(target, folder);
    assert.ok(!fs.existsSync(path.join(rebuilt, "a.db")));
    execFileSync("python3", ["-c", SCRIPT, target, rebuilt]);
    assert.ok(fs.readFileSync(path.join(rebuilt, "a.db")).equals(fs.readFileSync(file)));
    resticCheck(client, "with databases by pages");
  },
);
