import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { buildCommand, cairn, cairnOk, type Outcome, SCRATCH } from "../fixtures/command.ts";
import { loopFileSystem } from "../fixtures/loop-file-system.ts";

function assertRefused(outcome: Outcome): void {
  assert.deepEqual([outcome.status, outcome.error?.code], [7, "refused"], outcome.stderr);
  assert.match(`${outcome.error?.message}: ${outcome.error?.hint}`, /is empty, and .*--allow unmounted/);
}

function points(folder: string): number {
  return (cairnOk(["-C", folder, "history"]).data["save_points"] as unknown[]).length;
}

test("a command names the target of a link to a disk that is not mounted", () => {
  const [link, target] = [path.join(SCRATCH, "link"), path.join(SCRATCH, "disk/workspace")];
  fs.symlinkSync(target, link);
  const { status, error } = cairn(["-C", link, "history"]);
  assert.deepEqual([status, error?.message], [3, `${link} is a link to ${target}, which does not exist`]);
  assert.match(error!.hint!, /^mount the disk/);
});

test("save, backup and restore are refused if the workspace's disk is not mounted, unless that is allowed", (t) => {
  const disk = loopFileSystem(t, "ext4");
  if (disk === null) return;
  const folder = disk.root;
  const repository = path.join(SCRATCH, "repository");
  const to = ["-r", repository, "--password-command", "echo secret"];
  cairnOk(["init", folder, "--control-dir", path.join(SCRATCH, "unmounted-control")]);
  fs.writeFileSync(path.join(folder, "kept"), "content");
  cairnOk(["save", folder]);
  cairnOk(["backup", "init", ...to]);
  cairnOk(["backup", "create", folder, ...to]);
  const before = points(folder);
  disk.unmounted(() => {
    assertRefused(cairn(["save", folder]));
    assertRefused(cairn(["save", "-q", folder]));
    assert.equal(cairn(["-C", folder, "run", "--", "true"]).status, 7);
    assertRefused(cairn(["backup", "create", folder, ...to]));
    assertRefused(cairn(["-C", folder, "restore", "head"]));
    assertRefused(cairn(["-C", folder, "backup", "restore", "latest", "--in-place", ...to]));
    const status = cairnOk(["status", folder]);
    assert.match(status.warnings.join(), /nothing is mounted at/);
    assert.match(cairn(["-C", folder, "doctor", "--repair"]).stdout, /nothing is mounted at/);
    assert.deepEqual([points(folder), fs.readdirSync(folder)], [before, []]);
  });
  // Mounted again, by another loop device perhaps.
  cairnOk(["-C", folder, "restore", "head"]);
  fs.rmSync(path.join(folder, "kept"));
  fs.rmdirSync(path.join(folder, "lost+found"));
  cairnOk(["save", folder]);
  cairnOk(["-C", folder, "restore", "head~1"]);
  disk.unmounted(() => {
    cairnOk(["-C", folder, "restore", "head", "--allow", "unmounted"]);
    assert.equal(fs.readFileSync(path.join(folder, "kept"), "utf8"), "content");
    fs.rmSync(path.join(folder, "kept"));
    cairnOk(["save", folder]);
  });
});

test("save works if the workspace lies on another device, a bind mount or a plain folder than before", (t) => {
  const [one, other] = [loopFileSystem(t, "ext4"), loopFileSystem(t, "ext4")];
  if (one === null || other === null) return;
  const [folder, real] = [path.join(SCRATCH, "bound"), path.join(one.root, "real")];
  fs.mkdirSync(folder);
  fs.mkdirSync(real);
  fs.writeFileSync(path.join(real, "file"), "1");
  const bind = (from: string): void => void execFileSync("mount", ["--bind", from, folder]);
  const unbind = (): void => void execFileSync("umount", [folder]);
  bind(real);
  try {
    cairnOk(["init", folder, "--control-dir", path.join(SCRATCH, "bound-control")]);
    cairnOk(["save", folder]);
    unbind();
    assertRefused(cairn(["save", folder]));
    // An empty disk that is mounted there is what a restore fills.
    bind(other.root);
    cairnOk(["-C", folder, "restore", "head"]);
    assert.equal(fs.readFileSync(path.join(folder, "file"), "utf8"), "1");
    cairnOk(["save", folder]);
  } finally {
    unbind();
  }
  // The content was copied off the disk.
  fs.writeFileSync(path.join(folder, "file"), "2");
  assert.match(cairnOk(["save", folder]).warnings.join(), /is not the folder that was saved before/);
  fs.rmSync(path.join(folder, "file"));
  cairnOk(["save", folder]);
});

test("save --cross-mounts is refused if a disk inside the workspace is not mounted", (t) => {
  const disk = loopFileSystem(t, "ext4");
  if (disk === null) return;
  const folder = path.join(SCRATCH, "around");
  const inner = path.join(folder, "inner");
  fs.mkdirSync(inner, { recursive: true });
  fs.writeFileSync(path.join(disk.root, "file"), "1");
  execFileSync("mount", ["--bind", disk.root, inner]);
  try {
    cairnOk(["save", folder, "--cross-mounts"]);
  } finally {
    execFileSync("umount", [inner]);
  }
  assertRefused(cairn(["save", folder, "--cross-mounts"]));
  assertRefused(cairn(["-C", folder, "restore", "head"]));
  cairnOk(["save", folder, "--cross-mounts", "--allow", "unmounted"]);
  cairnOk(["save", folder, "--cross-mounts"]);
});

test("save is refused in a mount namespace without the workspace's disk", (t) => {
  const disk = loopFileSystem(t, "ext4");
  if (disk === null) return;
  const folder = path.join(disk.root, "work");
  // As programs do that start containers, which make what they are to mount.
  disk.unmounted(() => fs.mkdirSync(folder));
  fs.mkdirSync(folder);
  fs.writeFileSync(path.join(folder, "file"), "1");
  cairnOk(["init", folder, "--control-dir", path.join(SCRATCH, "namespace-control")]);
  cairnOk(["save", folder]);
  const script = `umount -l ${disk.root} && exec ${process.execPath} ${buildCommand()} save ${folder}`;
  const outcome = spawnSync("unshare", ["--mount", "sh", "-c", script], { encoding: "utf8" });
  if (outcome.error !== undefined) return t.skip("no unshare");
  assert.equal(outcome.status, 7, outcome.stderr);
  assert.match(outcome.stderr, /nothing is mounted at/);
  cairnOk(["save", folder]);
});
