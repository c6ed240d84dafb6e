import assert from "node:assert/strict";
import { randomBytes, randomInt } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { cairn, cairnOk, SCRATCH } from "../fixtures/command.ts";
import { backup, newRepository, noRestic, restic, tryBackup } from "../fixtures/repository.ts";
import { clientOf, newFolder, resticCheck } from "../fixtures/work.ts";
import { chosenPasses, killAt, passesOf } from "./rounds.ts";

/** Saves, backups and verifications that are killed while damage is remembered or mended: the next ones mend it. */

/** Changes a byte in the content of each large pack below a folder. */
function spoil(data: string): void {
  for (const name of fs.readdirSync(data, { recursive: true, encoding: "utf8" })) {
    const file = path.join(data, name);
    if (!/\/[0-9a-f]{64}$/.test(name) || fs.statSync(file).size < 50_000) continue;
    const bytes = fs.readFileSync(file);
    bytes[10 + randomInt(40_000)]! ^= 1 + randomInt(255);
    fs.writeFileSync(file, bytes);
  }
}

/** Kills a command that finds damage at some of its failpoints; calls `check` after each kill. */
function killedWhileItFinds(args: string[], check: (where: string) => void): void {
  const { failpoints, status } = cairn(args, { failpoint: "trace" });
  assert.equal(status, 6);
  assert.ok(failpoints.includes("ordered-staged"), failpoints.join(" "));
  for (const pass of chosenPasses(failpoints, 3)) {
    const done = cairn(args, { failpoint: `#${pass}` });
    check(`${args[0]} killed at ${pass} (${done.failpoints.at(-1)})`);
  }
}

test("a save that is killed while it mends damage leaves the mending to the next save", async () => {
  const folder = newFolder("mended");
  for (const name of ["a", "b"]) fs.writeFileSync(path.join(folder, name), randomBytes(100_000));
  const client = await clientOf(folder);
  await client.save();
  const data = path.join(client.controlDirectory, "store/data");
  const save = ["save", "-C", folder];
  const damage = async (): Promise<void> => {
    spoil(data);
    assert.ok((await client.verifyAll()).problems.length > 0);
  };
  await damage();
  const names = passesOf(save);
  for (const name of ["repair.packs-written", "repair.index-written", "repair.index-rewritten"])
    assert.ok(names.includes(name), `${name}: ${names.join(" ")}`);
  for (const pass of chosenPasses(names)) {
    await damage();
    const where = `save killed at ${pass} (${killAt(save, pass)})`;
    cairnOk(save);
    assert.deepEqual((await client.verifyAll()).problems, [], where);
  }
  spoil(data);
  killedWhileItFinds(["verify", "--all", "-C", folder], () => undefined);
  cairnOk(save);
  assert.deepEqual((await client.verifyAll()).problems, []);
  resticCheck(client, "at the end");
});

test("a verification that is killed while it remembers damage, or a backup that is killed after it, leaves a repository that the next ones mend", async () => {
  const folder = newFolder("mended-far");
  for (const name of ["a", "b"]) fs.writeFileSync(path.join(folder, name), randomBytes(100_000));
  const place = await newRepository("mended-far");
  const create = ["backup", "create", "-C", folder, ...place.options];
  backup(place, "create", "-C", folder);
  let copies = 0;
  const check = (where: string): void => {
    tryBackup(place, "verify");
    backup(place, "create", "-C", folder);
    const to = path.join(SCRATCH, `restored-after-${copies++}`);
    backup(place, "restore", "latest", "--to", to);
    for (const name of ["a", "b"])
      assert.deepEqual(fs.readFileSync(path.join(to, name)), fs.readFileSync(path.join(folder, name)), where);
    backup(place, "repair", "packs");
    assert.deepEqual((backup(place, "verify").data as { problems: unknown[] }).problems, [], where);
  };
  spoil(path.join(place.location, "data"));
  tryBackup(place, "verify");
  const names = passesOf(create);
  check("not killed");
  for (const pass of chosenPasses(names, 3)) {
    spoil(path.join(place.location, "data"));
    tryBackup(place, "verify");
    check(`backup killed at ${pass} (${killAt(create, pass)})`);
  }
  spoil(path.join(place.location, "data"));
  killedWhileItFinds(["backup", "verify", ...place.options], (where) => {
    check(where);
    spoil(path.join(place.location, "data"));
  });
  check("at the end");
  if (noRestic === false) restic(place, "check", "--read-data");
});
