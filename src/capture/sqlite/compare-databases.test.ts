import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test, type TestContext } from "node:test";
import { compareDatabases, type DatabaseDifferences } from "./compare-databases.ts";

function scene(t: TestContext, first: string, second: string): { a: string; b: string; found: DatabaseDifferences } {
  const folder = mkdtempSync(join(tmpdir(), "cairn-compare-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const [a, b] = [join(folder, "a"), join(folder, "b")];
  run(a, first);
  copyFileSync(a, b);
  run(b, second);
  return { a, b, found: compareDatabases({ before: a, after: b, limit: 2 }) };
}

function run(file: string, sql: string): void {
  const database = new DatabaseSync(file);
  database.exec(sql);
  database.close();
}

test("compareDatabases counts added, removed and changed rows, and lists the first rows of each kind", (t) => {
  const rows = Array.from({ length: 9 }, (_, i) => `(${i}, 'name ${i}', x'0${i}')`).join(",");
  const { found } = scene(
    t,
    `CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT COLLATE NOCASE, data); INSERT INTO t VALUES ${rows}`,
    `DELETE FROM t WHERE id = 3; INSERT INTO t VALUES (20, 'it''s', 1.5), (21, NULL, 2), (22, '', 3);
     UPDATE t SET name = 'NAME 1' WHERE id = 1; UPDATE t SET data = NULL WHERE id = 2`,
  );
  assert.deepEqual(found.schema, []);
  const [{ rows: listed, ...counts }] = found.tables as [DatabaseDifferences["tables"][0]];
  assert.deepEqual(counts, { name: "t", key: ["id"], added: 3, removed: 1, changed: 2 });
  assert.deepEqual(listed, [
    { before: null, after: { id: "20", name: "'it''s'", data: "1.5" } },
    { before: null, after: { id: "21", name: "NULL", data: "2" } },
    { before: { id: "3", name: "'name 3'", data: "X'03'" }, after: null },
    { before: { id: "1", name: "'name 1'", data: "X'01'" }, after: { id: "1", name: "'NAME 1'", data: "X'01'" } },
    { before: { id: "2", name: "'name 2'", data: "X'02'" }, after: { id: "2", name: "'name 2'", data: "NULL" } },
  ]);
});

test("compareDatabases lists schema changes, and compares rows by the columns in both databases", (t) => {
  const { found } = scene(
    t,
    "CREATE TABLE t (a, b); CREATE TABLE gone (x); INSERT INTO t VALUES (1, 2), (3, 4); CREATE VIEW v AS SELECT a FROM t",
    "ALTER TABLE t ADD COLUMN c DEFAULT 5; DROP TABLE gone; CREATE INDEX i ON t (b); UPDATE t SET b = 7 WHERE a = 3; DROP VIEW v; CREATE VIEW v AS SELECT b FROM t",
  );
  assert.deepEqual(
    found.schema.map(({ type, name, sqlBefore, sqlAfter }) => [type, name, sqlBefore !== null, sqlAfter !== null]),
    [
      ["table", "t", true, true],
      ["table", "gone", true, false],
      ["view", "v", true, true],
      ["index", "i", false, true],
    ],
  );
  const [table] = found.tables;
  assert.deepEqual([table?.key, table?.changed, table?.rows[0]?.after], [["rowid"], 1, { rowid: "2", a: "3", b: "7" }]);
});

test("compareDatabases matches rows with NULL in their key by rowid", (t) => {
  const { found } = scene(
    t,
    `CREATE TABLE t (a TEXT PRIMARY KEY, b); INSERT INTO t VALUES (NULL, 1), (NULL, 2), (NULL, 3), ('k', 4);
     CREATE TABLE two (a, b, c, PRIMARY KEY (a, b)); INSERT INTO two VALUES (1, NULL, 'x'), (1, NULL, 'y'), (1, 2, 'z')`,
    "UPDATE t SET b = 20 WHERE b = 2; DELETE FROM t WHERE b = 3; INSERT INTO two VALUES (1, NULL, 'w')",
  );
  assert.deepEqual(
    found.tables.map(({ name, added, removed, changed }) => [name, added, removed, changed]),
    [
      ["t", 0, 1, 1],
      ["two", 1, 0, 0],
    ],
  );
  assert.deepEqual(found.tables[0]!.rows.at(-1), { before: { a: "NULL", b: "2" }, after: { a: "NULL", b: "20" } });
});

test("compareDatabases names a table whose primary key changed, or that has no key and no rowid", (t) => {
  const { found } = scene(
    t,
    "CREATE TABLE k (a PRIMARY KEY, b); CREATE TABLE same (rowid, _rowid_, oid); INSERT INTO same VALUES (1, 2, 3)",
    "DROP TABLE k; CREATE TABLE k (a, b PRIMARY KEY)",
  );
  assert.deepEqual(
    found.tables.map(({ name, problem }) => [name, problem]),
    [
      ["same", "it has neither a primary key nor a rowid"],
      ["k", "its primary key has changed"],
    ],
  );
});

test("compareDatabases throws if a file is no database", (t) => {
  const { a, b } = scene(t, "CREATE TABLE t (a)", "");
  writeFileSync(b, "no database".repeat(500));
  assert.throws(() => compareDatabases({ before: a, after: b, limit: 1 }), /not a database/);
});

const SQLDIFF = spawnSync("sqldiff", ["--help"]).error === undefined ? false : "sqldiff is not installed";

test("compareDatabases counts the same rows as sqldiff", { skip: SQLDIFF }, (t) => {
  let seed = 7;
  const random = (below: number): number => (seed = (seed * 48_271) % 2_147_483_647) % below;
  const edits = Array.from({ length: 400 }, () => {
    const [table, id] = [["p", "w", "r"][random(3)], random(300)];
    const edit = [
      `INSERT OR REPLACE INTO ${table} (id, v) VALUES (${id}, ${random(5)})`,
      `DELETE FROM ${table} WHERE id = ${id}`,
      `UPDATE ${table} SET v = ${random(5)} WHERE id = ${id}`,
    ];
    return edit[random(3)]!;
  });
  const fill = ["p", "w", "r"].map(
    (name) => `INSERT INTO ${name} (id, v) SELECT value, value % 5 FROM generate_series(0, 199);`,
  );
  const series = fill.join("").replaceAll(/generate_series\(0, 199\)/g, "s");
  const { a, b, found } = scene(
    t,
    `CREATE TABLE p (id INTEGER PRIMARY KEY, v); CREATE TABLE w (id TEXT PRIMARY KEY, v) WITHOUT ROWID; CREATE TABLE r (id UNIQUE, v);
     CREATE TEMP TABLE s AS WITH RECURSIVE n(value) AS (SELECT 0 UNION ALL SELECT value + 1 FROM n WHERE value < 199) SELECT value FROM n; ${series}`,
    edits.join(";"),
  );
  const script = execFileSync("sqldiff", [a, b], { encoding: "utf8" });
  const lines = (start: RegExp): number => script.split("\n").filter((line) => start.test(line)).length;
  for (const { name, added, removed, changed } of found.tables) {
    const said = [`^INSERT INTO ${name}\\(`, `^DELETE FROM ${name} `, `^UPDATE ${name} `].map((each) =>
      lines(new RegExp(each)),
    );
    assert.deepEqual([added, removed, changed], said, name);
  }
  assert.equal(found.tables.length, 3);
});
