import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { cairn, cairnOk, SCRATCH } from "../fixtures/command.ts";
import { assertFolder, readFolder } from "../fixtures/folder-state.ts";
import { loopFileSystem } from "../fixtures/loop-file-system.ts";
import { makeFirst, makeSecond } from "../fixtures/two-states.ts";

/** Kernels mount a file system read-only after an error: just when one wants to get at what it holds. */

test("points on a read-only mount can be read and restored elsewhere", (t) => {
  const place = loopFileSystem(t, "ext4");
  if (place === null) return;
  const folder = path.join(place.root, "folder");
  fs.mkdirSync(folder);
  makeFirst(folder);
  const first = readFolder(folder);
  cairnOk(["save", folder]);
  makeSecond(folder);
  const second = readFolder(folder);
  cairnOk(["save", folder]);
  place.remount(["ro"]);
  const [to, part, fork] = ["to", "part", "fork"].map((name) => path.join(SCRATCH, `read-only-${name}`));
  for (const args of [
    ["verify", "--all"],
    ["verify", "head"],
    ["status"],
    ["history"],
    ["show", "head"],
    ["diff", "head~1", "head"],
    ["diff", "head"],
    ["restore", "head~1", "--plan"],
    ["cleanup", "purge", "--path", "big", "--plan"],
    ["cleanup", "--keep-last", "1", "--plan"],
    ["restore", "head~1", "--to", to!],
    ["restore", "head", "big", "--to", part!],
    ["fork", "head", fork!, "--standalone"],
  ])
    cairnOk(["-C", folder, ...args]);
  // Nothing is damaged, but saves fail.
  assert.equal(cairn(["-C", folder, "doctor"]).status, 4);
  assert.equal(cairnOk(["-C", folder, "status"]).data["clean"], true);
  assertFolder(to!, first, "restored elsewhere");
  assert.deepEqual(fs.readdirSync(part!), ["big"]);
  assertFolder(fork!, second, "forked");
  assert.deepEqual(
    fs.readdirSync(SCRATCH).filter((name) => name.includes("partial")),
    [],
  );
  for (const args of [
    ["save"],
    ["restore", "head~1"],
    ["view", "head"],
    ["fork", "head", path.join(SCRATCH, "read-only-beside")],
    ["cleanup", "--keep-last", "1"],
    ["cleanup", "purge", "--path", "big"],
    ["pin", "head"],
  ]) {
    const { status, error } = cairn(["-C", folder, ...args]);
    assert.deepEqual([status, error?.code], [9, "permission"], args.join(" "));
    assert.match(error!.message, /read-only file system/, args.join(" "));
  }
});

test("sealed points on a read-only btrfs can be read, and commands on unsealed points fail with permission", (t) => {
  const place = loopFileSystem(t, "btrfs");
  if (place === null) return;
  const folder = path.join(place.root, "folder");
  execFileSync("btrfs", ["subvolume", "create", folder]);
  makeFirst(folder);
  const first = readFolder(folder);
  cairnOk(["init", folder, "--engine", "btrfs-snapshot"]);
  cairnOk(["save", folder]);
  cairnOk(["seal", "-C", folder]);
  makeSecond(folder);
  fs.rmSync(path.join(folder, "big"));
  cairnOk(["save", folder]);
  fs.writeFileSync(path.join(folder, "not saved"), "new");
  place.remount(["ro"]);
  const told = (cairn(["-C", folder, "doctor"]).data["findings"] as { detail: string }[]).map(({ detail }) => detail);
  assert.match(told.join("\n"), /^saves and restores in place fail: .*read-only file system/m);
  assert.match(told.join("\n"), /^btrfs-snapshot does not work here now: /m);
  const { data, warnings } = cairnOk(["-C", folder, "status"]);
  assert.deepEqual([data["clean"], data["changes"]], [false, { added: 1, modified: 0, removed: 0 }]);
  assert.deepEqual(warnings, []);
  assert.equal((cairnOk(["-C", folder, "diff", "head"]).data["entries"] as unknown[]).length, 1);
  assert.equal((cairnOk(["-C", folder, "history"]).data["save_points"] as unknown[]).length, 2);
  cairnOk(["-C", folder, "show", "head~1"]);
  const to = path.join(SCRATCH, "read-only-sealed");
  cairnOk(["-C", folder, "restore", "head~1", "--to", to]);
  assertFolder(to, first, "restored elsewhere");
  const all = cairn(["-C", folder, "verify", "--all"]);
  assert.equal(all.status, 10);
  assert.deepEqual([all.data["problems"], (all.data["checked"] as { points: number }).points], [[], 1]);
  const [unverified] = all.data["unverified"] as { detail: string }[];
  assert.match(unverified!.detail, /is not sealed yet: lock .*read-only file system/);
  for (const args of [
    ["verify", "head"],
    ["show", "head"],
    ["restore", "head", "--plan"],
    ["restore", "head", "--to", path.join(SCRATCH, "read-only-held")],
    ["seal"],
  ]) {
    const { status, error } = cairn(["-C", folder, ...args]);
    assert.deepEqual([status, error?.code], [9, "permission"], args.join(" "));
    assert.match(error!.message, /read-only file system/, args.join(" "));
  }
  const { error } = cairn(["-C", folder, "restore", "head", "--to", path.join(SCRATCH, "read-only-held")]);
  const tree = /lies in (\S+);/.exec(error?.hint ?? "")?.[1];
  assert.ok(tree !== undefined && !fs.existsSync(path.join(tree, "big")) && fs.existsSync(tree), error?.hint ?? "");
});

test("restore names the command that makes a read-only subvolume writable", (t) => {
  const place = loopFileSystem(t, "btrfs");
  if (place === null) return;
  const folder = path.join(place.root, "folder");
  execFileSync("btrfs", ["-q", "subvolume", "create", folder]);
  makeFirst(folder);
  cairnOk(["init", folder, "--engine", "btrfs-snapshot"]);
  cairnOk(["-C", folder, "save"]);
  makeSecond(folder);
  cairnOk(["-C", folder, "save"]);
  execFileSync("btrfs", ["property", "set", "-ts", folder, "ro", "true"]);
  for (const method of ["entries", "exchange"]) {
    const { status, error } = cairn(["-C", folder, "restore", "head~1", "--method", method]);
    assert.deepEqual([status, error?.code], [9, "permission"]);
    assert.match(error?.hint ?? "", /btrfs property set -ts \S+ ro false/);
  }
  execFileSync("btrfs", ["property", "set", "-ts", folder, "ro", "false"]);
  cairnOk(["-C", folder, "restore", "head~1"]);
});
