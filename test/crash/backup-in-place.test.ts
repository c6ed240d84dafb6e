import assert from "node:assert/strict";
import { after, test } from "node:test";
import { readFolder } from "../fixtures/folder-state.ts";
import { cairnOk } from "../fixtures/command.ts";
import { backup, newRepository } from "../fixtures/repository.ts";
import { makeFirst, makeSecond } from "../fixtures/two-states.ts";
import { assertNoLeftovers, clientOf, newFolder } from "../fixtures/work.ts";
import { chosenPasses, killAt, oneOf, passesOf, SEED } from "./rounds.ts";

let failed = true;
after(() => {
  if (failed) process.stderr.write(`backup-in-place.test.ts: repeat with CAIRN_TEST_SEED=${SEED}\n`);
});

test("a restore of a snapshot over a folder that is killed anywhere leaves the old state or the new one, and is repeated", async () => {
  const source = newFolder("source");
  makeFirst(source);
  const place = newRepository("in-place");
  backup(place, "create", "--save", "-C", source);
  const wanted = readFolder(source);
  const prepare = (): string => {
    const folder = newFolder("target");
    makeFirst(folder);
    makeSecond(folder);
    cairnOk(["save", "-C", folder]);
    return folder;
  };
  const asked = ["backup", "restore", "latest", "--in-place", ...place.options];
  const args = (folder: string): string[] => [...asked, "-C", folder];
  const names = passesOf(args(prepare()));
  for (const name of ["transfer.index-written", "receive.staged", "restore-backup.received", "restore.committed"])
    assert.ok(names.includes(name), `${name} was passed`);
  for (const pass of chosenPasses(names, 10)) {
    const folder = prepare();
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
    const received = (await client.history()).save_points.filter(({ cause }) => cause.kind === "backup");
    assert.ok(received.length >= 1 && received.length <= 2, where);
  }
  failed = false;
});
