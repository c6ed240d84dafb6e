import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { makeFolder } from "./make-folder.ts";

function scratch(t: TestContext): string {
  const folder = fs.mkdtempSync(path.join(fs.realpathSync(os.tmpdir()), "cairn-make-"));
  t.after(() => fs.rmSync(folder, { recursive: true, force: true }));
  return folder;
}

test("makeFolder creates missing parents with mode 0700, and keeps existing folders", (t) => {
  const root = scratch(t);
  const folder = path.join(root, "a/b/c");
  makeFolder(folder);
  const modes = ["a", "a/b", "a/b/c"].map((each) => fs.statSync(path.join(root, each)).mode & 0o777);
  assert.deepEqual(modes, [0o700, 0o700, 0o700]);
  fs.writeFileSync(path.join(folder, "kept"), "x");
  fs.symlinkSync("a/b/c", path.join(root, "link"));
  for (const each of [folder, `${folder}/`, path.join(root, "link"), Buffer.from(folder)]) makeFolder(each);
  assert.deepEqual(fs.readdirSync(folder), ["kept"]);
});

test("makeFolder fails below a file, and below a symbolic link to a missing target", (t) => {
  const root = scratch(t);
  fs.writeFileSync(path.join(root, "file"), "");
  fs.symlinkSync("nowhere", path.join(root, "link"));
  assert.throws(() => makeFolder(path.join(root, "file")), { code: "EEXIST" });
  assert.throws(() => makeFolder(path.join(root, "file/a/b")), { code: "ENOTDIR" });
  assert.throws(() => makeFolder(path.join(root, "link/a")), { code: "ENOENT" });
  assert.deepEqual(fs.readdirSync(root), ["file", "link"]);
});

test(
  "makeFolder throws ENOENT for a path in /proc, which exists but accepts no folders",
  { skip: fs.existsSync("/proc/self") ? false : "there is no /proc" },
  () => {
    for (const each of ["/proc/cairn", "/proc/cairn/a/b"])
      assert.throws(() => makeFolder(each), { code: "ENOENT" }, each);
  },
);
