import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { pipeline } from "node:stream/promises";
import { test } from "node:test";
import { makeHalfTransaction, valuesOf } from "../../src/capture/sqlite/testing-half-transaction.ts";
import { makeRepository } from "../../src/backup/testing-repository.ts";
import { type JournalMode, makeDatabase, stateAfter, Writer } from "../../src/capture/sqlite/testing-writer.ts";
import { cairnOk, SCRATCH, startCairn } from "../fixtures/command.ts";
import { btrfsPlace } from "../fixtures/held-place.ts";
import { LONG } from "../fixtures/long.ts";
import { cairnLibrary } from "../fixtures/work.ts";

/** Transactions over two databases, in points that are snapshots of btrfs. */

const NAMES = ["a/one.db", "two.db"] as const;
const POINTS = LONG ? 13 : 3;

/** A killed program's transaction, whose journals name a file by the folder's path, in each place where a point comes. */
for (const moment of ["before", "after"] as const)
  test(`a point restores databases to one state in every folder if their program was killed ${moment} a commit`, async (t) => {
    const names = ["a/one.db", "two.db", "a/b/three.db"];
    const place = await btrfsPlace(t, () => undefined);
    if (place === null) return;
    const { client, folder, volume } = place;
    const here = await client.save();
    makeHalfTransaction(folder, { names, moment });
    const wanted = names.map(() => (moment === "before" ? "0" : "1"));
    const found = (root: string): string[] => names.map((name) => valuesOf(path.join(root, name)));
    const { save_point_id: target } = await client.save();
    // The folder is another one by now, and what the journals name is gone.
    const moved = path.join(volume.root, "moved");
    await client.fork(target, moved);
    const { undo_id: undo } = await client.restore({ target: here.save_point_id });
    await client.fork(undo!, `${moved}-undo`);
    await client.restore({ target });
    assert.deepEqual(found(folder), wanted);
    await client.restore({ target, to: `${moved}-to` });
    await client.restore({ target: here.save_point_id });
    await client.restore({ target, paths: ["a/one.db"] });
    assert.equal(valuesOf(path.join(folder, names[0]!)), wanted[0]);
    await client.undo();
    await client.redo();
    const shown = fs.createWriteStream(path.join(volume.root, "shown"));
    await pipeline(client.read(target, "a/one.db"), shown);
    assert.equal(valuesOf(path.join(volume.root, "shown")), wanted[0]);
    for (const each of [moved, `${moved}-undo`, `${moved}-to`]) assert.deepEqual(found(each), wanted, each);
    const { labels } = (await client.show(target)).save_point;
    const said = labels.map(({ path: own, label, recovered }) => [own, label, recovered]);
    assert.deepEqual(said.toSorted(), names.map((name) => [name, "transaction-consistent", true]).toSorted());
    assert.deepEqual((await client.verifyAll()).problems, []);
  });

test("database capture rolls a transaction back even if another program recovers its databases meanwhile", async () => {
  const folder = path.join(SCRATCH, "recovered-meanwhile");
  makeHalfTransaction(folder, { names: NAMES, moment: "before" });
  const [file, wait] = [path.join(folder, NAMES[1]), `${folder}.wait`];
  fs.writeFileSync(wait, "");
  const words = ["database", "capture", file, "--to", `${folder}.image`];
  const running = startCairn(words, { failpoint: `database.copied@${wait}` });
  await running.paused;
  for (const name of NAMES) {
    const database = new DatabaseSync(path.join(folder, name));
    database.exec("SELECT count(*) FROM t");
    database.close();
  }
  assert.deepEqual(fs.readdirSync(folder).toSorted(), ["a", "two.db"]);
  fs.rmSync(wait);
  assert.equal((await running.ended).status, 0);
  assert.equal(valuesOf(`${folder}.image`), "0");
});

test("save freezes the databases of a program in another PID namespace, and labels them transaction-consistent", async (t) => {
  const place = await btrfsPlace(t, (folder) => {
    fs.mkdirSync(path.join(folder, "a"));
    makeDatabase(path.join(folder, NAMES[0]), "wal", 4096, path.join(folder, NAMES[1]));
  });
  if (place === null) return;
  const { client, folder } = place;
  const prefix = ["unshare", "--pid", "--fork", "--mount-proc"];
  if (spawnSync("unshare", [...prefix.slice(1), "true"]).status !== 0)
    return t.skip("unshare makes no PID namespace here");
  await client.save();
  await client.seal();
  const database = new DatabaseSync(path.join(folder, NAMES[0]));
  t.after(() => database.close());
  database.prepare("ATTACH ? AS second").run(path.join(folder, NAMES[1]));
  database.exec("BEGIN; UPDATE one SET n = 7; UPDATE two SET n = 7; COMMIT");
  const saved = cairnOk(["save"], { cwd: folder, prefix }).data["save_point"] as { save_point_id: string };
  await client.seal();
  const { labels } = (await client.show(saved.save_point_id)).save_point;
  const said = labels.map(({ path: name, label, reason }) => [name, label, reason]);
  assert.deepEqual(
    said.toSorted(),
    NAMES.map((name) => [name, "transaction-consistent", undefined]),
  );
  database.exec("UPDATE one SET n = 8");
  const { save_point_id: alone } = await client.save({ databases: "copy" });
  await client.seal();
  const reasons = (await client.show(alone)).save_point.labels.map(({ reason }) => reason?.slice(0, 29));
  assert.deepEqual(reasons, ["each consistent, not together", "each consistent, not together"]);
});

/** The last transaction that each of both databases has. Asserts that each is whole, as after a transaction. */
function transactionsIn(folder: string): number[] {
  return NAMES.map((name, i) => {
    const database = new DatabaseSync(path.join(folder, name));
    try {
      assert.equal(database.prepare("PRAGMA integrity_check").get()!["integrity_check"], "ok", name);
      const table = i === 0 ? "one" : "two";
      const rows = database
        .prepare(`SELECT n FROM ${table} ORDER BY id`)
        .all()
        .map(({ n }) => Number(n));
      const newest = Math.max(...rows);
      assert.deepEqual(rows, stateAfter(newest), name);
      return newest;
    } finally {
      database.close();
    }
  });
}

const MODES: readonly JournalMode[] = LONG ? ["delete", "truncate", "persist", "wal"] : ["delete", "wal"];
for (const mode of MODES)
  test(`no btrfs point restores half of a transaction over two databases without a label, journal mode ${mode}`, async (t) => {
    const place = await btrfsPlace(t, (folder) => {
      fs.mkdirSync(path.join(folder, "a"));
      makeDatabase(path.join(folder, NAMES[0]), mode, 4096, path.join(folder, NAMES[1]));
    });
    if (place === null) return;
    const { client, folder, volume } = place;
    const access = { repository: path.join(SCRATCH, `attached-${mode}`), password: "p" };
    await makeRepository(access);
    const repository = await (await cairnLibrary()).openRepository(access);
    const second = path.join(folder, NAMES[1]);
    const writer = await Writer.start(t, path.join(folder, NAMES[0]), "FULL", { second, mode });
    const targets: string[] = [];
    for (let i = 0; i < POINTS; i++) {
      const { save_point_id: target, labels } = await client.save();
      const isTorn = labels.filter(({ path: name }) => name.includes("-mj"));
      assert.deepEqual(isTorn, [], "a super-journal is whole in a snapshot");
      targets.push(target);
    }
    await writer.stop();
    const counts = { whole: 0, labelled: 0 };
    for (const [i, target] of targets.entries()) {
      const places = ["fork", "to", "backup", "in place"].map((how) => path.join(volume.root, `${how} ${i}`));
      await client.fork(target, places[0]!);
      places[3] = folder;
      await client.restore({ target, method: "exchange" });
      const inPlace = transactionsIn(folder);
      await client.restore({ target, to: places[1]! });
      const { labels } = (await client.show(target)).save_point;
      const { snapshot } = await client.createBackup(repository, { point: target });
      await repository.restore(snapshot!.snapshot_id, places[2]!);
      const found = [...places.slice(0, 3).map(transactionsIn), inPlace];
      const isTogether = labels.every(
        ({ label, reason }) => label === "transaction-consistent" && reason === undefined,
      );
      for (const [one, two] of found) {
        if (one === two) counts.whole++;
        else assert.equal(isTogether, false, `${one} and ${two}, ${JSON.stringify(labels)}`);
      }
      if (!isTogether) counts.labelled++;
      if (mode !== "wal") for (const [one, two] of found) assert.equal(one, two);
    }
    t.diagnostic(JSON.stringify(counts));
    await repository.close();
  });
