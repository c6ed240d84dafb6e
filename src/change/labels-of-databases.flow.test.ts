import assert from "node:assert/strict";
import { readFileSync, truncateSync, utimesSync, writeFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { makeDatabase } from "../capture/sqlite/testing-writer.ts";
import { testFolder } from "../keep/testing-folder.ts";

/** Labels of databases that nobody uses say what SQLite found. */

test("save labels an unused database transaction-consistent if SQLite finds no damage, else crash-consistent", async (t) => {
  const { client, folder } = await testFolder(t, {});
  const place = (name: string): string => path.join(folder, `${name}.db`);
  for (const name of ["whole", "short", "damaged", "wal"]) makeDatabase(place(name), name === "wal" ? "wal" : "delete");
  truncateSync(place("short"), 5 * 4096);
  const bytes = readFileSync(place("damaged"));
  bytes.fill(0x5a, 2 * 4096, 4 * 4096);
  writeFileSync(place("damaged"), bytes);
  const labels = async (): Promise<unknown> => {
    const { labels: all } = await client.save();
    return all.map(({ path: name, label, reason }) => [name, label, reason?.replace(/: .*/s, "")]);
  };
  const wanted = [
    ["damaged.db", "crash-consistent", "SQLite finds it damaged"],
    ["short.db", "crash-consistent", "SQLite finds it damaged"],
    ["wal.db", "transaction-consistent", undefined],
    ["whole.db", "transaction-consistent", undefined],
  ];
  assert.deepEqual(await labels(), wanted);
  // Nothing is read again, so that SQLite is not asked again.
  for (const name of ["whole", "short", "damaged", "wal"]) utimesSync(place(name), 1, 1);
  assert.deepEqual(await labels(), wanted);
  writeFileSync(path.join(folder, "other"), "other");
  const third = (await labels()) as string[][];
  assert.deepEqual(
    third.map(([name, label]) => [name, label]),
    wanted.map(([name, label]) => [name, label]),
  );
});

test("save with databases: copy labels a database crash-consistent and says that it was not checked", async (t) => {
  const { client, folder } = await testFolder(t, {});
  makeDatabase(path.join(folder, "app.db"), "delete");
  const { labels } = await client.save({ databases: "copy" });
  assert.deepEqual(
    labels.map(({ path: name, label }) => [name, label]),
    [["app.db", "crash-consistent"]],
  );
  assert.match(labels[0]!.reason!, /did not check/);
  // A save that captures checks the same file.
  const again = await client.save({ reread: true });
  assert.ok(again.labels.length === 1);
});
