import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { newArena } from "../../native.ts";
import { EBADF } from "./errno.ts";
import {
  attributesByName,
  type AttributesByName,
  byOpening,
  directly,
  inDirectory,
  putName,
  syscalls,
} from "./syscalls.ts";

const ONE = Buffer.from("user.one");

/** What a way of asking says of an entry: its list, one value that is set and read back; or minus errno. */
function saidOf(ways: AttributesByName, folder: string, name: string): unknown {
  return inDirectory(folder, (fd) => {
    const [at, out] = [newArena(64), newArena(1024)];
    putName(at, 0, Buffer.from(name));
    const set = ways.lsetxattr(fd, at, 0, ONE, Buffer.from("value"));
    if (set < 0) return [set, ways.llistxattr(fd, at, 0, out)];
    const listed = Buffer.from(out.bytes.subarray(0, ways.llistxattr(fd, at, 0, out))).toString("latin1");
    const got = ways.lgetxattr(fd, at, 0, ONE, out, 3);
    assert.equal(ways.lsetxattr(fd, at, 0, ONE, new Uint8Array(0)), 0);
    const empty = ways.lgetxattr(fd, at, 0, ONE, out, 0);
    return [listed.split("\0").includes("user.one"), Buffer.from(out.bytes.subarray(3, 3 + got)).toString(), empty];
  });
}

function scratch(t: TestContext): string | null {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-attributes-"));
  t.after(() => fs.rmSync(folder, { recursive: true }));
  fs.mkdirSync(path.join(folder, "directory"));
  fs.writeFileSync(path.join(folder, "file"), "");
  fs.symlinkSync("file", path.join(folder, "link"));
  execFileSync("mkfifo", [path.join(folder, "pipe")]);
  const [isSet] = saidOf(attributesByName(syscalls()), folder, "file") as [unknown];
  if (isSet === true) return folder;
  t.skip("the file system has no attributes of users");
  return null;
}

test("each way to call the xattr functions reads and writes attributes of files and directories", (t) => {
  const folder = scratch(t);
  if (folder === null) return;
  const ways = [attributesByName(syscalls()), directly(), byOpening(syscalls())];
  for (const way of ways.filter((each) => each !== null))
    for (const name of ["directory", "file"]) assert.deepEqual(saidOf(way, folder, name), [true, "value", 0], name);
});

test("no way to call the xattr functions follows a symbolic link or opens a pipe", (t) => {
  const folder = scratch(t);
  if (folder === null) return;
  const usual = attributesByName(syscalls());
  const ways = [usual, directly(), byOpening(syscalls())].filter((each) => each !== null);
  for (const way of ways) {
    const [set, listed] = saidOf(way, folder, "link") as number[];
    assert.ok(set! < 0 && listed! >= 0, `${set} ${listed}`);
  }
  assert.deepEqual(saidOf(byOpening(syscalls()), folder, "pipe"), [EBADF, EBADF]);
  assert.deepEqual(saidOf(directly() ?? usual, folder, "pipe"), saidOf(usual, folder, "pipe"));
});
