import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { buildCommand, cairn, cairnOk, type Outcome, SCRATCH } from "../fixtures/command.ts";

function assertNamed({ status, error }: Outcome): void {
  assert.deepEqual([status, error?.code], [8, "no_space"]);
  assert.match(error!.message, /has \d+ inodes? left/);
  assert.match(error!.hint!, /each takes an inode/);
}

test("init and save on a file system without free inodes name the cause", (t) => {
  const disk = path.join(SCRATCH, "disk");
  fs.mkdirSync(disk);
  const mount = (options: string): number | null =>
    spawnSync("mount", ["-t", "tmpfs", "-o", options, "none", disk]).status;
  if (mount("nr_inodes=200,size=64m") !== 0) return t.skip("mounting is not allowed");
  t.after(() => spawnSync("umount", ["-l", disk]));
  const folder = path.join(SCRATCH, "work");
  fs.mkdirSync(folder);
  fs.writeFileSync(path.join(folder, "file"), "1");
  const init = ["init", folder, "--control-dir", path.join(disk, "control")];
  assertNamed(cairn(init));
  assert.equal(mount("remount,nr_inodes=1200"), 0);
  cairnOk(init);
  cairnOk(["save", folder]);
  try {
    for (let at = 0; at < 1200; at++) fs.writeFileSync(path.join(disk, `file${at}`), "");
  } catch {
    // No inode is left.
  }
  fs.writeFileSync(path.join(folder, "file"), "2");
  assertNamed(cairn(["save", folder]));
});

test("a command that may open too few files names ulimit -n and prints no stack trace", (t) => {
  const folder = path.join(SCRATCH, "few");
  fs.mkdirSync(folder);
  cairnOk(["save", folder]);
  let seen = 0;
  // Threads open files in another order each time, so that a limit may be too small only now and then.
  for (let at = 0; at < 50 && (at < 10 || seen === 0); at++) {
    const limit = 22 + (at % 10);
    const line = `ulimit -n ${limit} && exec "$@"`;
    const child = spawnSync("sh", ["-c", line, "sh", process.execPath, buildCommand(), "status", folder], {
      encoding: "utf8",
    });
    // Node itself does not begin with fewer.
    if (child.status === 0 || child.signal !== null || !child.stderr.startsWith("cairn:")) continue;
    seen++;
    assert.doesNotMatch(child.stderr, /^ +at /m, `${limit}: ${child.stderr}`);
    assert.match(child.stderr, /EMFILE/, `${limit}`);
    assert.match(child.stderr, /ulimit -n/, `${limit}: ${child.stderr}`);
  }
  // With one limit Node itself ends, with the next one all is well.
  if (seen === 0) t.skip("no limit lets Node begin and is too small for the command");
});
