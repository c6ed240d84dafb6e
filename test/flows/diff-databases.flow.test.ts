import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { cairn, cairnOk, SCRATCH } from "../fixtures/command.ts";

interface Found {
  schema: { type: string; name: string }[];
  tables: { name: string; added: number; removed: number; changed: number; rows: unknown[] }[];
}

function diff(folder: string, ...words: string[]): Found {
  return cairnOk(["-C", folder, "diff", "--sql", path.join(folder, "data/app.db"), ...words]).data as unknown as Found;
}

test("diff --sql shows the rows that differ between points, and between a point and a database in use", () => {
  const folder = path.join(SCRATCH, "shop");
  fs.mkdirSync(path.join(folder, "data"), { recursive: true });
  const file = path.join(folder, "data/app.db");
  const database = new DatabaseSync(file);
  database.exec("PRAGMA journal_mode = WAL; CREATE TABLE item (id INTEGER PRIMARY KEY, name, price)");
  database.exec("INSERT INTO item VALUES (1, 'pen', 2), (2, 'ink', 3), (3, 'cup', 5)");
  cairnOk(["save", folder]);
  database.exec(
    "UPDATE item SET price = 4 WHERE id = 2; DELETE FROM item WHERE id = 3; CREATE INDEX cheap ON item (price)",
  );
  assert.ok(fs.statSync(`${file}-wal`).size > 0, "what was committed last lies in the log");
  cairnOk(["-C", folder, "save"]);
  database.exec("INSERT INTO item VALUES (4, 'mug', 6)");
  database.exec("BEGIN IMMEDIATE; INSERT INTO item VALUES (5, 'not committed', 0)");
  const between = diff(folder, "head~1", "head");
  assert.deepEqual(
    between.schema.map(({ type, name }) => `${type} ${name}`),
    ["index cheap"],
  );
  const [{ rows, ...counts }] = between.tables as [Found["tables"][0]];
  assert.deepEqual(counts, { name: "item", key: ["id"], added: 0, removed: 1, changed: 1 });
  assert.deepEqual(rows, [
    { before: { id: "3", name: "'cup'", price: "5" }, after: null },
    { before: { id: "2", name: "'ink'", price: "3" }, after: { id: "2", name: "'ink'", price: "4" } },
  ]);
  const now = diff(folder);
  assert.deepEqual(
    now.tables.map(({ name, added, removed, changed }) => [name, added, removed, changed]),
    [["item", 1, 0, 0]],
  );
  database.exec("COMMIT");
  const all = diff(folder, "head~1", "--limit", "0");
  assert.deepEqual(
    all.tables.map(({ added, removed, changed, rows: shown }) => [added, removed, changed, shown]),
    [[2, 1, 1, []]],
  );
  database.close();
  fs.writeFileSync(path.join(folder, "data/text"), "no database\n");
  const refused = cairn(["-C", folder, "diff", "--sql", path.join(folder, "data/text")]);
  assert.equal(refused.error?.code, "not_found");
  cairnOk(["-C", folder, "save"]);
  assert.equal(cairn(["-C", folder, "diff", "--sql", "data/text", "head", "head"]).error?.code, "damaged");
  assert.equal(cairn(["-C", folder, "diff", "--limit", "3"]).error?.code, "usage");
});
