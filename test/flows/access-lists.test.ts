import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { cairnOk, SCRATCH } from "../fixtures/command.ts";
import { loopFileSystem } from "../fixtures/loop-file-system.ts";
import { newFolder } from "../fixtures/work.ts";

/** Of extended attributes by which xfs shows root a file's access list a second time. */
const SHADOW = "trusted.SGI_ACL_FILE";

function attributes(file: string): string {
  return execFileSync("getfattr", ["-d", "-m", "-", "--absolute-names", file], { encoding: "utf8" });
}

function access(file: string): string {
  return execFileSync("getfacl", ["-cnp", file], { encoding: "utf8" });
}

test("a right that was taken away stays away when its list was saved on xfs and restored there again", (t) => {
  const xfs = loopFileSystem(t, "xfs");
  if (xfs === null) return;
  const first = path.join(xfs.root, "first");
  fs.mkdirSync(first);
  const file = path.join(first, "file");
  fs.writeFileSync(file, "content");
  execFileSync("setfacl", ["-m", "u:1000:rw", file]);
  assert.match(attributes(file), new RegExp(SHADOW));
  const saved = cairnOk(["save", first]);
  const elsewhere = path.join(SCRATCH, "not-xfs");
  cairnOk(["-C", first, "restore", "head", "--to", elsewhere]);
  assert.match(access(path.join(elsewhere, "file")), /user:1000:rw-/);
  assert.doesNotMatch(attributes(path.join(elsewhere, "file")), new RegExp(SHADOW));
  assert.equal(cairnOk(["-C", first, "status"]).data["clean"], true, JSON.stringify(saved.data));
  // What an earlier version restored has it.
  const old = newFolder();
  fs.writeFileSync(path.join(old, "file"), "content", { mode: 0o640 });
  const value = execFileSync("getfattr", ["-n", SHADOW, "-e", "hex", "--only-values", "--absolute-names", file]);
  execFileSync("setfattr", ["-n", SHADOW, "-v", `0x${value.toString("hex")}`, path.join(old, "file")]);
  cairnOk(["save", old]);
  const back = path.join(xfs.root, "back");
  cairnOk(["-C", old, "restore", "head", "--to", back]);
  assert.doesNotMatch(access(path.join(back, "file")), /user:1000/);
});
