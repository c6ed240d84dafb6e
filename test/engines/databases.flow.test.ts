import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { LiveDatabases } from "../../src/capture/sqlite/live-databases.ts";
import { makeDatabase, stateAfter, stateOf, Writer } from "../../src/capture/sqlite/testing-writer.ts";
import { type HeldKind, heldPlace, type HoldingEngine } from "../fixtures/held-place.ts";

/** Databases in use, in points that hold whole trees. */

/** The number of commits that a database has. Asserts that it is whole, and all of one commit. */
function commitsIn(file: string): number {
  const database = new DatabaseSync(file);
  try {
    assert.equal(database.prepare("PRAGMA integrity_check").get()!["integrity_check"], "ok");
    const { one, two } = stateOf(database);
    assert.deepEqual(one, two);
    const newest = Math.max(...one);
    assert.deepEqual(one, stateAfter(newest));
    return newest;
  } finally {
    database.close();
  }
}

const PLACES: readonly [HeldKind, HoldingEngine][] = [
  ["xfs", "reflink-copy"],
  ["btrfs", "btrfs-snapshot"],
];
for (const [kind, engine] of PLACES)
  for (const mode of ["wal", "delete"] as const)
    test(`a point by ${engine} has a database at one transaction while a program writes to it, journal mode ${mode}`, async (t) => {
      const fill = (folder: string): void => makeDatabase(path.join(folder, "app.db"), mode);
      const place = await heldPlace(t, { kind, engine, fill });
      if (place === null) return;
      const { client, folder, volume } = place;
      // A snapshot has what was flushed, as a crash leaves it.
      const writer = await Writer.start(t, path.join(folder, "app.db"), engine === "btrfs-snapshot" ? "FULL" : "OFF");
      for (let i = 0; i < 5; i++) {
        const before = await writer.commits();
        const { save_point_id: target, effective_engine, degraded } = await client.save();
        const after = await writer.commits();
        assert.deepEqual([effective_engine, degraded], [engine, []]);
        const held = path.join(volume.root, `held-${i}`);
        await client.fork(target, held);
        const sealed = path.join(volume.root, `sealed-${i}`);
        await client.seal();
        const { labels, complete } = (await client.show(target)).save_point;
        const said = labels.map(({ path: where, label }) => [where, label]);
        const wanted = [["app.db", "transaction-consistent"]];
        assert.deepEqual(said, wanted, JSON.stringify(labels));
        assert.equal(complete, true);
        await client.restore({ target, to: sealed });
        for (const back of [held, sealed]) {
          const commits = commitsIn(path.join(back, "app.db"));
          assert.ok(before <= commits && commits <= after + 1, `${before} <= ${commits} <= ${after}`);
        }
      }
      await writer.stop();
      assert.deepEqual((await client.verifyAll()).problems, []);
    });

test("a save by reflink-copy lists a possibly torn database as left out, and is not complete", async (t) => {
  const fill = (folder: string): void => makeDatabase(path.join(folder, "app.db"), "wal");
  const place = await heldPlace(t, { kind: "xfs", engine: "reflink-copy", fill });
  if (place === null) return;
  const database = new DatabaseSync(path.join(place.folder, "app.db"));
  t.after(() => database.close());
  database.exec("UPDATE one SET n = 1");
  // As if somebody removed it meanwhile.
  t.mock.method(LiveDatabases.prototype, "hold", async () => null);
  const { complete, labels, left_out: leftOut } = await place.client.save();
  assert.deepEqual([complete, labels.map(({ label }) => label)], [false, ["torn-possible"]]);
  assert.deepEqual(
    leftOut.map(({ path: name, reason }) => [name, reason]),
    [["app.db", "changing"]],
  );
});

/** Leaves a log that no checkpoint can empty: it writes a row, then holds a read transaction. */
const READER = `
  const database = new (require("node:sqlite").DatabaseSync)(process.argv[1]);
  database.exec("CREATE TABLE t (v); INSERT INTO t VALUES (randomblob(200000)); BEGIN");
  database.prepare("SELECT v FROM t").all();
  process.stdin.on("end", () => database.close()).resume();
  console.log("ready");
`;

test("a save by reflink-copy reports the bytes of an image that it captured of a database in use", async (t) => {
  const fill = (folder: string): void => makeDatabase(path.join(folder, "app.db"), "wal");
  const place = await heldPlace(t, { kind: "xfs", engine: "reflink-copy", fill });
  if (place === null) return;
  const { client, folder } = place;
  const file = path.join(folder, "app.db");
  const reader = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", "-e", READER, file]);
  t.after(() => void reader.kill("SIGKILL"));
  await once(reader.stdout, "data");
  const busy = await client.save();
  assert.deepEqual(
    [busy.effective_engine, busy.labels.map(({ label }) => label)],
    ["reflink-copy", ["transaction-consistent"]],
  );
  const ended = once(reader, "exit");
  reader.stdin.end();
  await ended;
  assert.equal(busy.bytes_stored, fs.statSync(file).size);
  fs.writeFileSync(path.join(folder, "notes"), "more");
  const quiet = await client.save();
  assert.deepEqual([quiet.effective_engine, quiet.bytes_stored], ["reflink-copy", 0]);
  await client.seal();
  assert.deepEqual((await client.verifyAll()).problems, []);
});
