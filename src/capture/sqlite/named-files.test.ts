import assert from "node:assert/strict";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test, type TestContext } from "node:test";
import { namedFiles } from "./named-files.ts";

/** A database that no process uses; with `isLogged` its last row is only in its log. */
function scene(t: TestContext, isLogged = false): { root: string; ask: (query: string) => unknown[][] } {
  const root = mkdtempSync(join(tmpdir(), "cairn-named-"));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  mkdirSync(join(root, "own"));
  const made = new DatabaseSync(join(root, "own/a.db"));
  made.exec(
    "CREATE TABLE files (path, size, sha256); INSERT INTO files VALUES ('one', 1, NULL), (x'ff62', NULL, 'AB')",
  );
  if (isLogged) made.exec("PRAGMA journal_mode = WAL; INSERT INTO files VALUES ('late', NULL, x'00ff')");
  for (const ending of isLogged ? ["", "-wal"] : [""])
    copyFileSync(join(root, `own/a.db${ending}`), join(root, `a.db${ending}`));
  made.close();
  mkdirSync(join(root, "scratch"));
  const request = { path: Buffer.from(join(root, "a.db")), scratch: join(root, "scratch") };
  const ask = (query: string): unknown[][] =>
    namedFiles({ ...request, query }).map(({ path, size, sha256 }) => [
      Buffer.from(path).toString("latin1"),
      size,
      sha256,
    ]);
  return { root, ask };
}

test("rows name files with their sizes and hashes", (t) => {
  const { ask } = scene(t);
  assert.deepEqual(ask("select * from files"), [
    ["one", 1, null],
    ["\xffb", null, "ab"],
  ]);
  assert.deepEqual(
    ask("with recursive n(i) as (select 1 union all select i + 1 from n where i < 3) select i as Path from n"),
    [
      ["1", null, null],
      ["2", null, null],
      ["3", null, null],
    ],
  );
});

test("paths that are not UTF-8 keep their bytes, whatever form the query has; paths in UTF-16 are decoded", (t) => {
  const { root, ask } = scene(t);
  const change = (database: string, statements: string): void => {
    const changed = new DatabaseSync(join(root, database));
    changed.exec(statements);
    changed.close();
  };
  const rows = "(CAST(x'7ac3' AS TEXT), 2, NULL), ('z' || char(0xfffd), 3, NULL), ('', NULL, NULL)";
  change("a.db", `DELETE FROM files; INSERT INTO files VALUES ${rows}`);
  const both = [
    ["z\xc3", 2, null],
    ["z\xef\xbf\xbd", 3, null],
  ];
  for (const query of [
    "select * from files order by size",
    "select Path, size from files order by size ; ",
    "with f as (select * from files) select f.size, f.path from f where size > 1 -- the largest",
    "select path, size from files; -- all",
  ])
    assert.deepEqual(ask(query), both, query);
  rmSync(join(root, "a.db"));
  change("a.db", "PRAGMA encoding = 'UTF-16le'; CREATE TABLE files (path); INSERT INTO files VALUES ('zé')");
  assert.deepEqual(ask("select path from files"), [["z\xc3\xa9", null, null]]);
});

test("rows in the database's log are read, and neither file changes", (t) => {
  const { root, ask } = scene(t, true);
  const files = ["a.db", "a.db-wal"].map((name) => join(root, name));
  const before = files.map((file) => readFileSync(file));
  assert.deepEqual(ask("select path, sha256 from files where path = 'late'"), [["late", null, "00ff"]]);
  assert.deepEqual(
    files.map((file) => readFileSync(file)),
    before,
  );
  assert.deepEqual(readdirSync(root).toSorted(), ["a.db", "a.db-wal", "own", "scratch"]);
});

test("a query that is no SELECT of paths is refused, and changes nothing", (t) => {
  const { root, ask } = scene(t);
  const evil = join(root, "evil.db");
  const before = readFileSync(join(root, "a.db"));
  for (const query of [
    `attach '${evil}' as x`,
    `vacuum into '${evil}'`,
    "delete from files",
    "create table path (path)",
    "pragma table_list",
    "select path from pragma_table_list",
    "select 1",
    "select path, size, 1 as other from files",
    "select load_extension('x') as path",
    "select path from nowhere",
    "",
  ])
    assert.throws(() => ask(query), { code: "usage", message: /^the query / }, query);
  assert.equal(existsSync(evil), false);
  assert.deepEqual(readFileSync(join(root, "a.db")), before);
});
