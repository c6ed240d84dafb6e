import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { cairnOk, SCRATCH } from "../fixtures/command.ts";

const isRoot = process.geteuid?.() === 0;
const skip = isRoot && spawnSync("mkfs.ext4", ["-V"]).error === undefined ? false : "needs root and mkfs.ext4";

test("what a file system keeps at its own root is no part of a workspace there", { skip }, (t) => {
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
