import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { buildCommand, cairn, cairnOk, type Outcome, SCRATCH, startCairn } from "../fixtures/command.ts";
import { readFolder } from "../fixtures/folder-state.ts";
import { heldPlace } from "../fixtures/held-place.ts";
import { loopFileSystem, ORDINARY_USER } from "../fixtures/loop-file-system.ts";
import { juicefsVolume } from "../fixtures/juicefs.ts";
import { makeFirst } from "../fixtures/two-states.ts";
import { pauseFile } from "../fixtures/work.ts";

const isRoot = process.geteuid?.() === 0;
const skip = isRoot && spawnSync("mkfs.ext4", ["-V"]).error === undefined ? false : "needs root and mkfs.ext4";

test("save leaves out lost+found at the root of a file system, and restore keeps it", { skip }, (t) => {
  const image = path.join(SCRATCH, "volume.img");
  const folder = path.join(SCRATCH, "volume");
  fs.writeFileSync(image, "");
  fs.truncateSync(image, 32 << 20);
  fs.mkdirSync(folder);
  execFileSync("mkfs.ext4", ["-q", image]);
  execFileSync("mount", ["-o", "loop", image, folder]);
  t.after(() => execFileSync("umount", [folder]));
  fs.writeFileSync(path.join(folder, "file"), "one");
  const control = ["--control-dir", path.join(SCRATCH, "volume-control")];
  cairnOk(["init", folder, ...control]);
  const first = cairnOk(["save", folder]).data["save_point"] as { save_point_id: string; entries: number };
  assert.equal(first.entries, 1);
  fs.writeFileSync(path.join(folder, "file"), "two");
  cairnOk(["restore", first.save_point_id, "-C", folder]);
  assert.ok(fs.existsSync(path.join(folder, "lost+found")));
  assert.equal(fs.readFileSync(path.join(folder, "file"), "utf8"), "one");
});

test("save leaves out the virtual files that JuiceFS shows at the root of a mount", (t) => {
  const volume = juicefsVolume(t, "real");
  if (volume === null) return;
  const { root } = volume;
  const shown = fs.readdirSync(root).filter((name) => name.startsWith("."));
  assert.ok(shown.includes(".accesslog") && shown.includes(".config"), shown.join());
  const elsewhere = path.join(SCRATCH, "elsewhere");
  fs.mkdirSync(elsewhere);
  makeFirst(elsewhere);
  fs.writeFileSync(path.join(elsewhere, ".config"), "somebody's own");
  const own = cairnOk(["save", elsewhere]).data["save_point"] as { payload_root_hash: string; entries: number };
  fs.rmSync(path.join(elsewhere, ".config"));
  const there = cairnOk(["save", elsewhere]).data["save_point"] as { payload_root_hash: string; entries: number };
  assert.equal(own.entries, there.entries + 1);
  // As a volume is filled before somebody works in it.
  cairnOk(["-C", elsewhere, "restore", "head", "--to", root]);
  cairnOk(["init", root, "--control-dir", path.join(SCRATCH, "juicefs-control")]);
  type Saved = { save_point_id: string; complete: boolean; payload_root_hash: string; entries: number };
  const first = cairnOk(["save", root]).data["save_point"] as Saved;
  assert.deepEqual([first.complete, first.payload_root_hash], [true, there.payload_root_hash]);
  fs.writeFileSync(path.join(root, "was-file"), "changed\n");
  fs.rmSync(path.join(root, "goes"), { recursive: true });
  const restored = cairnOk(["-C", root, "restore", first.save_point_id]).data as { left_out: unknown[] };
  assert.deepEqual(restored.left_out, []);
  assert.equal((cairnOk(["status", root]).data as { clean: boolean }).clean, true);
  assert.equal((cairnOk(["save", root]).data["save_point"] as Saved).payload_root_hash, there.payload_root_hash);
});

test("a new folder is not mistaken for a workspace or fork at the same path on another mount", (t) => {
  const [one, other] = [loopFileSystem(t, "ext4"), loopFileSystem(t, "ext4")];
  if (one === null || other === null) return;
  const [old, now, fork] = [one.root, other.root, other.root].map((root, at) =>
    path.join(root, at < 2 ? "work" : "fork"),
  ) as [string, string, string];
  fs.mkdirSync(old);
  fs.writeFileSync(path.join(old, "file"), "one");
  cairnOk(["save", old]);
  assert.equal(
    fs.readdirSync(path.join(one.root, ".cairn-control")).filter((name) => /^[0-9a-f]{32}$/.test(name)).length,
    1,
  );
  cairnOk(["-C", old, "fork", "head", fork]);
  fs.cpSync(old, now, { recursive: true });
  fs.rmSync(old, { recursive: true });
  cairnOk(["relocate", old, now]);
  for (const [foreign, kept] of [
    [old, now],
    [path.join(one.root, "fork"), fork],
  ] as const) {
    fs.mkdirSync(foreign);
    assert.equal(cairn(["release", foreign]).error?.code, "not_a_workspace");
    fs.writeFileSync(path.join(foreign, "else"), "x");
    cairnOk(["save", foreign]);
    assert.equal((cairnOk(["-C", kept, "history"]).data["save_points"] as unknown[]).length, 1);
    assert.deepEqual(fs.readdirSync(kept), ["file"]);
  }
});

test("save puts no points into a .cairn-control that another user made at a world-writable mount root", (t) => {
  const disk = loopFileSystem(t, "ext4");
  if (disk === null) return;
  fs.chmodSync(disk.root, 0o1777);
  const [theirs, folder] = [path.join(disk.root, ".cairn-control"), path.join(disk.root, "work")];
  for (const each of [theirs, folder]) fs.mkdirSync(each);
  fs.chownSync(theirs, ORDINARY_USER, ORDINARY_USER);
  fs.writeFileSync(path.join(folder, "file"), "one");
  const { control_directory: control } = cairnOk(["init", folder]).data["workspace"] as { control_directory: string };
  assert.ok(!control.startsWith(disk.root), control);
  assert.deepEqual(fs.readdirSync(theirs), []);
  const open = path.join(SCRATCH, "open-state");
  fs.mkdirSync(open);
  fs.chmodSync(open, 0o777);
  const refused = cairn(["save", disk.root], { env: { XDG_STATE_HOME: open } }).error;
  assert.deepEqual([refused?.code, /every user may rename entries of/.test(refused?.message ?? "")], ["refused", true]);
  // Root's own is safe there.
  fs.chownSync(theirs, 0, 0);
  const second = path.join(disk.root, "second");
  fs.mkdirSync(second);
  fs.writeFileSync(path.join(second, "file"), "one");
  cairnOk(["save", second]);
  const [id] = fs.readdirSync(theirs).filter((name) => /^[0-9a-f]{32}$/.test(name));
  fs.renameSync(path.join(theirs, id!), path.join(theirs, "moved"));
  const gone = cairn(["save", second]).error;
  assert.equal(gone?.code, "not_found");
  assert.ok(gone.message.includes(path.join(theirs, id!)), gone.message);
});

test("a workspace with unsealed points can be relocated onto another file system", async (t) => {
  const place = await heldPlace(t, { kind: "btrfs", engine: "btrfs-snapshot", fill: makeFirst });
  const other = loopFileSystem(t, "ext4");
  if (place === null || other === null) return;
  const { client, folder } = place;
  const state = readFolder(folder);
  const { save_point_id: id, sealed } = await client.save();
  assert.equal(sealed, false);
  const now = path.join(other.root, "now");
  execFileSync("cp", ["-a", folder, now]);
  execFileSync("btrfs", ["-q", "subvolume", "delete", folder]);
  cairnOk(["relocate", folder, now]);
  fs.rmSync(path.join(now, fs.readdirSync(now)[0]!), { recursive: true });
  cairnOk(["-C", now, "restore", id]);
  assert.deepEqual(readFolder(now), state);
});

test("the command that release prints finds the points on another mount", (t) => {
  const [one, other] = [loopFileSystem(t, "ext4"), loopFileSystem(t, "ext4")];
  if (one === null || other === null) return;
  const [folder, fork] = [path.join(one.root, "work"), path.join(other.root, "fork")];
  fs.mkdirSync(folder);
  fs.writeFileSync(path.join(folder, "file"), "one");
  cairnOk(["save", folder]);
  cairnOk(["-C", folder, "fork", "head", fork]);
  const said = execFileSync(process.execPath, [buildCommand(), "release", fork], { encoding: "utf8" });
  const line = /: cairn (.*)$/m.exec(said)?.[1] ?? said;
  cairnOk(line.split(" "));
  assert.equal((cairnOk(["-C", fork, "history"]).data["save_points"] as unknown[]).length, 1);
});

test("commands report a folder whose mount is gone as not_found, before and during a call", async (t) => {
  const disk = loopFileSystem(t, "ext4");
  if (disk === null) return;
  const folder = path.join(disk.root, "work");
  fs.mkdirSync(folder);
  fs.writeFileSync(path.join(folder, "file"), "one");
  cairnOk(["init", folder, "--control-dir", path.join(SCRATCH, "control-of-gone")]);
  const first = cairnOk(["save", folder]).data["save_point"] as { save_point_id: string };
  fs.writeFileSync(path.join(folder, "file"), "two");
  const requireGone = (done: Outcome, when: string): void => {
    assert.deepEqual([done.status, done.error?.code], [3, "not_found"], `${when}: ${done.error?.message}`);
    assert.equal(done.error?.message, `the folder ${folder} is not there`, when);
  };
  const pause = pauseFile();
  const restoring = startCairn(["restore", first.save_point_id, "-C", folder], {
    failpoint: `restore.committed@${pause}`,
  });
  await restoring.paused;
  execFileSync("umount", ["-l", disk.root]);
  fs.rmSync(pause);
  requireGone(await restoring.ended, "during a restore");
  for (const command of ["save", "status", "diff"])
    requireGone(cairn([command, "-C", folder]), `${command}, unmounted`);
  if (!mountDead(disk.root)) return t.diagnostic("no FUSE here");
  try {
    for (const command of ["save", "status", "diff"]) requireGone(cairn([command, "-C", folder]), `${command}, dead`);
    cairnOk(["workspaces"]);
  } finally {
    execFileSync("umount", [disk.root]);
  }
  disk.remount();
  cairnOk(["save", folder]);
  assert.equal(fs.readFileSync(path.join(folder, "file"), "utf8"), "one");
});

/** Mounts a FUSE file system whose program has ended; false where there is none. */
function mountDead(place: string): boolean {
  if (!fs.existsSync("/dev/fuse")) return false;
  const fd = fs.openSync("/dev/fuse", "r+");
  const how = ["-i", "-t", "fuse", "-o", "fd=3,rootmode=40000,user_id=0,group_id=0", "none", place];
  const mounted = spawnSync("mount", how, { stdio: ["ignore", "ignore", "ignore", fd] });
  fs.closeSync(fd);
  return mounted.status === 0;
}
