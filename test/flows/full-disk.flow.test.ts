import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { cairn, cairnOk, SCRATCH } from "../fixtures/command.ts";
import { assertFolder, readFolder } from "../fixtures/folder-state.ts";
import { heldPlace } from "../fixtures/held-place.ts";
import { loopFileSystem } from "../fixtures/loop-file-system.ts";
import { fillDisk, untilFree } from "../fixtures/room.ts";
import { newRepository } from "../fixtures/repository.ts";
import { newFolder } from "../fixtures/work.ts";
import { firstOf } from "../fixtures/long.ts";

/** Points on a file system that others have filled. */

/** So many names that caches of them are more than a few blocks. */
function makeMany(folder: string): void {
  fs.mkdirSync(path.join(folder, "many"), { recursive: true });
  for (let n = 0; n < 3000; n++)
    fs.writeFileSync(path.join(folder, "many", `a name that takes some room ${n}`), `${n}`);
}

function saveNew(folder: string): string {
  fs.writeFileSync(path.join(folder, "changes"), randomBytes(3 << 20));
  return (cairnOk(["save", folder]).data["save_point"] as { save_point_id: string }).save_point_id;
}

function controlOf(root: string): string {
  const controls = path.join(root, ".cairn-control");
  const [control] = fs.readdirSync(controls, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  return path.join(controls, control!.name);
}

for (const kind of firstOf(["ext4", "xfs"] as const, 1)) {
  test(`points can be read, and cleanup frees space, on a full disk: ${kind}`, (t) => {
    const place = loopFileSystem(t, kind);
    if (place === null) return;
    const folder = path.join(place.root, "folder");
    makeMany(folder);
    const ids = [saveNew(folder), saveNew(folder), saveNew(folder)];
    const last = readFolder(folder);
    fillDisk(path.join(place.root, "filler"));
    const to = path.join(SCRATCH, `full-${kind}`);
    for (const args of [
      ["status"],
      ["history"],
      ["show", "head"],
      ["diff", "head~1", "head"],
      ["verify", "--all"],
      ["restore", "head", "--to", to],
    ])
      cairnOk(["-C", folder, ...args]);
    assertFolder(to, last, "restored elsewhere");
    const refused = cairn(["-C", folder, "save"]);
    assert.deepEqual([refused.status, refused.error?.code], [8, "no_space"]);
    const one = cairnOk(["-C", folder, "cleanup", "drop", ids[1]!]);
    assert.ok((one.data["bytes_freed"] as number) > 3 << 20, one.stdout);
    cairnOk(["-C", folder, "cleanup", "--keep-last", "1"]);
    assert.equal((cairnOk(["-C", folder, "history"]).data["save_points"] as unknown[]).length, 1);
    assert.deepEqual(cairnOk(["-C", folder, "verify", "--all"]).data["problems"], []);
    assert.deepEqual(cairnOk(["-C", folder, "doctor"]).data["findings"], []);
  });
}

test("cleanup of a workspace that copies frees space on a full btrfs", (t) => {
  const place = loopFileSystem(t, "btrfs");
  if (place === null) return;
  const folder = path.join(place.root, "folder");
  fs.mkdirSync(folder);
  saveNew(folder);
  saveNew(folder);
  fillDisk(path.join(place.root, "filler"));
  fillInodes(path.join(place.root, "small"));
  cairnOk(["-C", folder, "cleanup", "--keep-last", "1", "--keep-undo", "0"]);
  assert.equal((cairnOk(["-C", folder, "history"]).data["save_points"] as unknown[]).length, 1);
  assert.deepEqual(cairnOk(["-C", folder, "doctor"]).data["findings"], []);
});

/** Fills also the room for metadata, in which btrfs keeps small files. */
function fillInodes(folder: string): void {
  fs.mkdirSync(folder);
  try {
    for (let n = 0; ; n++) fs.writeFileSync(path.join(folder, String(n)), Buffer.alloc(2000, n));
  } catch (error) {
    assert.equal((error as NodeJS.ErrnoException).code, "ENOSPC");
  }
}

for (const [kind, engine] of [
  ["btrfs", "btrfs-snapshot"],
  ["xfs", "reflink-copy"],
] as const)
  test(`cleanup frees space on a disk that held trees have filled: ${engine}`, async (t) => {
    const place = await heldPlace(t, { kind, engine });
    if (place === null) return;
    const { folder, volume, client } = place;
    const spare = path.join(client.controlDirectory, "cache/spare");
    for (let n = 0; n < 3; n++) {
      fs.writeFileSync(path.join(folder, "changes"), randomBytes(40 << 20));
      await client.save();
    }
    assert.ok(fs.existsSync(spare));
    fillDisk(path.join(volume.root, "filler"));
    const { status, error } = cairn(["-C", folder, "save"]);
    assert.deepEqual([status, error?.code], [8, "no_space"]);
    cairnOk(["-C", folder, "cleanup", "--keep-last", "1", "--keep-undo", "0"]);
    assert.deepEqual(cairnOk(["-C", folder, "doctor"]).data["healthy"], true);
    assert.equal((await client.history(undefined, 0, { all: true })).save_points.length, 1);
    assert.ok(!fs.existsSync(spare));
    if (kind === "btrfs")
      for (const what of ["filesystem", "subvolume"])
        execFileSync("btrfs", [what, "sync", volume.root], { stdio: "ignore" });
    await untilFree(volume.root, 60 << 20);
    await client.save();
    assert.ok(fs.existsSync(spare));
    assert.deepEqual(cairnOk(["-C", folder, "verify", "--all"]).data["problems"], []);
  });

test("cleanup asks for free space if the disk is full and Cairn has no cache to delete", (t) => {
  const place = loopFileSystem(t, "ext4");
  if (place === null) return;
  const folder = path.join(place.root, "folder");
  fs.mkdirSync(folder);
  const first = saveNew(folder);
  saveNew(folder);
  const cache = path.join(controlOf(place.root), "cache");
  for (const name of fs.readdirSync(cache)) fs.rmSync(path.join(cache, name));
  fillDisk(path.join(place.root, "filler"));
  const { status, error } = cairn(["-C", folder, "cleanup", "drop", first]);
  assert.deepEqual([status, error?.code], [8, "no_space"]);
  assert.match(error?.hint ?? "", /free some space on the file system of/);
  fs.rmSync(path.join(place.root, "filler"));
  cairnOk(["-C", folder, "cleanup", "drop", first]);
});

test("restore and undo in a btrfs-snapshot workspace succeed on a full disk", async (t) => {
  const place = await heldPlace(t, { kind: "btrfs", engine: "btrfs-snapshot" });
  if (place === null) return;
  const { folder, volume } = place;
  const first = saveNew(folder);
  const old = readFolder(folder);
  saveNew(folder);
  fs.writeFileSync(path.join(folder, "unsaved"), randomBytes(1 << 20));
  const present = readFolder(folder);
  fillDisk(path.join(volume.root, "filler"));
  cairnOk(["-C", folder, "restore", first]);
  assertFolder(folder, old, "the first point");
  cairnOk(["-C", folder, "undo"]);
  assertFolder(folder, present, "as it was before");
});

test("a restore without enough space says how much it needs and what a cleanup would free", (t) => {
  const place = loopFileSystem(t, "ext4");
  if (place === null) return;
  const folder = path.join(place.root, "folder");
  makeMany(folder);
  const points = [1, 2, 3, 4, 5].map(() => saveNew(folder));
  fs.writeFileSync(path.join(folder, "unsaved"), randomBytes(1 << 20));
  const present = readFolder(folder);
  fillDisk(path.join(place.root, "filler"));
  const { status, error } = cairn(["-C", folder, "restore", points[2]!]);
  assert.deepEqual([status, error?.code], [8, "no_space"]);
  assert.match(error?.hint ?? "", /need (?:about|up to) 3 MiB of free space .*--keep-last 3` would free about 6 MiB/);
  assertFolder(folder, present, "nothing was changed");
  const [, elsewhere] =
    /`cairn -C \S+ (restore \w+ --to) DIR` writes .*`cairn -C \S+ show \w+:FILE` prints/.exec(error?.hint ?? "") ?? [];
  cairnOk(["-C", folder, ...elsewhere!.split(" "), path.join(SCRATCH, "full-elsewhere")]);
  cairnOk(["-C", folder, "cleanup", "--keep-last", "3"]);
  cairnOk(["-C", folder, "restore", points[2]!]);
});

for (const how of [["--prove", "memory"], ["--prove", "no"], []])
  test(`backup restore leaves no folder if the system could not write all content: ${how.join(" ")}`, async (t) => {
    // Into a file system that believes that it has room.
    const place = loopFileSystem(t, "ext4", { room: 24 << 20 });
    if (place === null) return;
    const folder = newFolder("large");
    for (let i = 0; i < 48; i++) fs.writeFileSync(path.join(folder, `${i}`), randomBytes(1 << 20));
    const repository = await newRepository();
    cairnOk(["backup", "create", folder, ...repository.options]);
    const to = path.join(place.root, "back");
    const { status, error } = cairn(["backup", "restore", "latest", "--to", to, ...how, ...repository.options]);
    // What fails first is the system's choice: a flush, or a file system that has become read-only over it.
    assert.deepEqual([status !== 0, fs.existsSync(to)], [true, false], JSON.stringify(error));
  });
