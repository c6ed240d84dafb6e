import assert from "node:assert/strict";
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { readFolder } from "../fixtures/folder-state.ts";
import { cairnOk } from "../fixtures/command.ts";
import { backup, newRepository } from "../fixtures/repository.ts";
import { makeFirst, makeSecond } from "../fixtures/two-states.ts";
import { assertNoLeftovers, clientOf, newFolder } from "../fixtures/work.ts";
import { chosenPasses, killAt, oneOf, passesOf } from "./rounds.ts";

/** Makes a database that a backup stores page by page. */
function makeDatabase(folder: string): void {
  const database = new DatabaseSync(join(folder, "pages.db"));
  database.exec("CREATE TABLE t (v); INSERT INTO t VALUES (randomblob(1200000))");
  database.close();
}

/** Loses all packs of a workspace's store. */
async function losePacks(folder: string): Promise<void> {
  const data = join((await clientOf(folder)).controlDirectory, "store", "data");
  rmSync(data, { recursive: true });
  mkdirSync(data);
}

for (const { lost, steps } of [
  { lost: false, steps: ["transfer.index-written", "receive.staged", "restore-backup.received", "restore.committed"] },
  { lost: true, steps: ["repair.index-written", "repair.index-removed", "receive.staged"] },
]) {
  const store = lost ? " of a workspace whose store has lost its packs" : "";
  test(`a restore of a snapshot in place${store}, if killed, leaves the old or the new state, and can be repeated`, async () => {
    const source = newFolder("source");
    makeFirst(source);
    if (!lost) makeDatabase(source);
    const place = await newRepository("in-place");
    backup(place, "create", "-C", source);
    const wanted = readFolder(source);
    const prepare = async (): Promise<string> => {
      const folder = newFolder("target");
      makeFirst(folder);
      makeSecond(folder);
      cairnOk(["save", "-C", folder]);
      if (lost) await losePacks(folder);
      return folder;
    };
    const asked = ["backup", "restore", "latest", "--in-place", "--path", source, ...place.options];
    const args = (folder: string): string[] => [...asked, "-C", folder];
    const names = passesOf(args(await prepare()));
    for (const name of steps) assert.ok(names.includes(name), `${name} was passed`);
    // Of a store that is not whole only what differs.
    const passes = lost ? steps.map((name) => names.indexOf(name) + 1) : chosenPasses(names);
    for (const pass of passes) {
      const folder = await prepare();
      const before = readFolder(folder);
      const killed = killAt(args(folder), pass);
      const where = `killed at ${pass} (${killed})`;
      cairnOk(["save", "--skip-unchanged", "-C", folder]);
      oneOf(folder, { before, wanted }, where);
      cairnOk(args(folder));
      oneOf(folder, { wanted }, where);
      const client = await clientOf(folder);
      assert.deepEqual((await client.verifyAll()).problems, [], where);
      assertNoLeftovers(client, folder, where);
      const received = (await client.history(undefined, 0, { all: true })).save_points.filter(
        ({ cause }) => cause.kind === "backup",
      );
      assert.ok(received.length >= 1 && received.length <= 2, where);
    }
  });
}
