import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { buildCommand, SCRATCH } from "../fixtures/command.ts";
import {
  backup,
  newRepository,
  noRestic,
  restic,
  resticFed,
  resticRepository,
  resticSnapshots,
  type TestRepository,
} from "../fixtures/repository.ts";
import { firstOf } from "../fixtures/long.ts";

/** `cairn backup stream` in a process of its own, and what restic says to it. */

function fromStdin(place: TestRepository, input: Buffer, ...args: string[]): { status: number | null; stderr: string } {
  const words = ["backup", "stream", ...place.options, ...args];
  const child = spawnSync(process.execPath, [buildCommand(), ...words], { input, encoding: "utf8", cwd: SCRATCH });
  return { status: child.status, stderr: child.stderr };
}

function ids(place: TestRepository): string[] {
  return (backup(place, "list").data["snapshots"] as { snapshot_id: string }[]).map(({ snapshot_id: id }) => id);
}

for (const version of firstOf([2, 1] as const, 1)) {
  test(
    `Cairn and restic read each other's backups of a stream in a repository of version ${version}`,
    { skip: noRestic },
    () => {
      const place = resticRepository(version);
      const content = randomBytes(5_000_000);
      assert.equal(fromStdin(place, content, "--name", "/dumps/db.sql", "-t", "nightly").status, 0);
      restic(place, "check", "--read-data");
      const [ours] = resticSnapshots(place);
      assert.deepEqual([ours?.paths, ours?.tags], [["/dumps/db.sql"], ["nightly"]]);
      assert.ok(resticFed(place, "", "dump", "latest", "/dumps/db.sql").equals(content));
      const theirs = randomBytes(2_000_000);
      resticFed(place, theirs, "backup", "--stdin", "--stdin-filename", "/dumps/db.sql");
      const target = path.join(SCRATCH, `theirs-${version}`);
      backup(place, "restore", "latest", "--to", target);
      assert.ok(fs.readFileSync(path.join(target, "dumps/db.sql")).equals(theirs));
      assert.equal(fromStdin(place, content, "--name", "/dumps/db.sql").status, 0);
      assert.equal(resticSnapshots(place).at(-1)?.parent, resticSnapshots(place)[1]?.id, "restic's is the parent");
      restic(place, "forget", "--keep-last", "1", "--prune");
      restic(place, "check", "--read-data");
      assert.deepEqual(backup(place, "verify").data["problems"], []);
    },
  );
}

test("a backup of a stream makes no snapshot if the command fails, the stream is empty or options are wrong", async () => {
  const place = await newRepository();
  const file = `${place.location}.input`;
  fs.writeFileSync(file, "content");
  const command = (...words: string[]): number | null => {
    const args = ["backup", "stream", ...place.options, "--", ...words];
    return spawnSync(process.execPath, [buildCommand(), ...args]).status;
  };
  assert.equal(command("sh", "-c", `cat ${file}; exit 4`), 1);
  assert.equal(command("/no/such/program"), 3);
  assert.equal(fromStdin(place, Buffer.alloc(0)).status, 7);
  const words = [buildCommand(), "backup", "stream", ...place.options];
  const notText = spawnSync("sh", [
    "-c",
    `echo x | "$0" "$@" --name "$(printf 'a\\377b')"`,
    process.execPath,
    ...words,
  ]);
  assert.deepEqual([notText.status, /not UTF-8/.test(notText.stderr.toString())], [2, true]);
  const folder = fs.openSync(SCRATCH, "r");
  const ofFolder = spawnSync(process.execPath, words, { stdio: [folder, "ignore", "pipe"], encoding: "utf8" });
  fs.closeSync(folder);
  assert.deepEqual([ofFolder.status, /EISDIR/.test(ofFolder.stderr)], [1, true], ofFolder.stderr);
  assert.equal(fromStdin(place, Buffer.from("x"), "--name", "..").status, 2);
  assert.deepEqual(ids(place), []);
  assert.equal(command("cat", file), 0);
  assert.equal(ids(place).length, 1);
});

test("a backup of a long stream uses little memory", async () => {
  const place = await newRepository();
  const told = "process.on('exit', () => process.stderr.write(`peak ${process.resourceUsage().maxRSS}\\n`))";
  const stream = ["--", "head", "-c", "800M", "/dev/zero"];
  const args = ["--import", `data:text/javascript,${told}`, buildCommand(), "backup", "stream", ...place.options];
  const { status, stderr } = spawnSync(process.execPath, [...args, ...stream], { encoding: "utf8" });
  assert.equal(status, 0, stderr);
  const peak = Number(/peak (\d+)/.exec(stderr)?.[1]) / 1024;
  assert.ok(peak < 300, `${Math.round(peak)} MiB`);
});
