import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { directly } from "../../src/fs/linux/syscalls.ts";
import { cairn, cairnOk } from "../fixtures/command.ts";
import { assertFolder, readFolder } from "../fixtures/folder-state.ts";
import { heldPlace } from "../fixtures/held-place.ts";
import { whyProcStays, WITHOUT_PROC } from "../fixtures/without-proc.ts";
import { newFolder } from "../fixtures/work.ts";

/** The command in a chroot without /proc, in a workspace whose points are btrfs snapshots elsewhere. */

const skip = whyProcStays() ?? false;
/** In a process of its own: one that is there already does not see what is mounted later. */
const CHROOT = { prefix: WITHOUT_PROC, own: true };
const REASON = "there is no /proc here, so Cairn cannot find out what is mounted inside";

function makeSubvolume(place: string): void {
  execFileSync("btrfs", ["subvolume", "create", place], { stdio: "ignore" });
}

function subvolumesOf(volume: string): string[] {
  const listed = execFileSync("btrfs", ["subvolume", "list", volume], { encoding: "utf8" });
  return listed.split("\n").flatMap((line) => line.split(" path ")[1] ?? []);
}

test("save copies into the store, and says why, if /proc is missing", { skip }, async (t) => {
  const place = await heldPlace(t, { kind: "btrfs", engine: "btrfs-snapshot" });
  if (place === null) return;
  const { folder } = place;
  fs.mkdirSync(path.join(folder, "d"));
  fs.writeFileSync(path.join(folder, "d/file"), "first");
  cairnOk(["-C", folder, "save"]);
  const first = readFolder(folder);
  fs.writeFileSync(path.join(folder, "d/file"), "second");
  const saved = cairnOk(["-C", folder, "save"], CHROOT).data["save_point"] as Record<string, unknown>;
  assert.deepEqual(saved["degraded"], [{ what: "btrfs-snapshot", reason: REASON }]);
  assert.equal(saved["effective_engine"], "copy");
  const said = (data: Record<string, unknown>): unknown =>
    (data["engine_reasons"] as { chosen: boolean; reason: string }[]).find(({ chosen }) => chosen)?.reason;
  for (const command of ["status", "doctor"])
    assert.equal(said(cairnOk(["-C", folder, command], CHROOT).data), REASON, command);
  const second = readFolder(folder);
  cairnOk(["-C", folder, "restore", "head~1"], CHROOT);
  assertFolder(folder, first, "restored");
  cairnOk(["-C", folder, "undo"], CHROOT);
  assertFolder(folder, second, "taken back");
  const [oldest] = (
    cairnOk(["-C", folder, "history"], CHROOT).data["save_points"] as { save_point_id: string }[]
  ).slice(-1);
  cairnOk(["-C", folder, "cleanup", "drop", oldest!.save_point_id], CHROOT);
  assert.deepEqual(
    subvolumesOf(folder).filter((name) => name.includes("points")),
    [],
    "the held tree is gone",
  );
  const after = cairnOk(["-C", folder, "save"]).data["save_point"] as Record<string, unknown>;
  assert.equal(after["effective_engine"], "btrfs-snapshot");
});

test("save and restore keep attributes of directories and pipes if /proc is missing", { skip }, async (t) => {
  if (directly() === null) return t.skip("Linux tells them of pipes since 6.13");
  const place = await heldPlace(t, { kind: "btrfs", engine: "btrfs-snapshot" });
  if (place === null) return;
  const { folder } = place;
  const [directory, pipe] = ["d", "d/pipe"].map((name) => path.join(folder, name));
  fs.mkdirSync(directory!);
  execFileSync("mkfifo", [pipe!]);
  execFileSync("setfattr", ["-n", "user.note", "-v", "keep", directory!]);
  execFileSync("setfacl", ["-m", "u:4321:r", pipe!]);
  const rights = (): string => execFileSync("getfacl", ["-cnp", pipe!], { encoding: "utf8" });
  const before = rights();
  cairnOk(["-C", folder, "save"], CHROOT);
  fs.rmSync(directory!, { recursive: true });
  cairnOk(["-C", folder, "restore", "head"], CHROOT);
  const value = execFileSync("getfattr", ["-n", "user.note", "--only-values", "--absolute-names", directory!]);
  assert.deepEqual([value.toString(), rights()], ["keep", before]);
});

test("restore leaves a subvolume inside the folder unchanged if /proc is missing", { skip }, async (t) => {
  const place = await heldPlace(t, { kind: "btrfs", engine: "btrfs-snapshot" });
  if (place === null) return;
  const { folder } = place;
  makeSubvolume(path.join(folder, "sub"));
  fs.mkdirSync(path.join(folder, "sub/d"));
  cairnOk(["-C", folder, "save"], CHROOT);
  fs.writeFileSync(path.join(folder, "sub/other"), "second");
  const second = readFolder(folder);
  assert.equal(cairn(["-C", folder, "restore", "head"], CHROOT).status, 10);
  assertFolder(folder, second, "restored");
});

test("save --cross-mounts is refused if /proc is missing", { skip }, () => {
  const folder = newFolder();
  const { status, error } = cairn(["save", folder, "--cross-mounts"], CHROOT);
  assert.deepEqual([status, error!.code], [2, "unsupported"]);
  assert.match(error!.message, new RegExp(REASON));
  assert.match(error!.hint!, /mount -t proc/);
});

test("init does not convert a folder, and says why, if /proc is missing", { skip }, async (t) => {
  const place = await heldPlace(t, { kind: "btrfs", engine: "btrfs-snapshot" });
  if (place === null) return;
  const plain = path.join(path.dirname(place.folder), "plain");
  fs.mkdirSync(plain);
  const { status, error } = cairn(["init", "--engine", "btrfs-snapshot", plain], CHROOT);
  assert.equal(status, 2);
  assert.match(error!.message, new RegExp(`plain cannot be kept as btrfs snapshots: ${REASON}`));
  assert.match(error!.hint!, /mount -t proc/);
});
