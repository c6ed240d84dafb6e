import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { loopFileSystem } from "../../test/fixtures/loop-file-system.ts";
import { makeSubvolume, setReadOnly } from "./linux/btrfs.ts";
import { identityOf, isSameDirectory, removal, removeAll, removeOnly } from "./remove-all.ts";
import { openDirectory, syscalls } from "./linux/syscalls.ts";

function folder(t: TestContext): string {
  const made = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), "cairn-remove-")));
  t.after(() => removeAll(made));
  return made;
}

/** `tree/a/b` with a file, and `theirs` of the same names with more in it, closed to all but its owner. */
function treeAndTheirs(t: TestContext): { root: string; fd: number } {
  const root = folder(t);
  for (const each of ["tree/a/b/c", "theirs/b/c"]) {
    fs.mkdirSync(path.join(root, each), { recursive: true });
    fs.writeFileSync(path.join(root, each, "file"), each);
  }
  fs.chmodSync(path.join(root, "theirs/b"), 0o500);
  const fd = openDirectory(root);
  t.after(() => fs.closeSync(fd));
  return { root, fd };
}

function assertUntouched(root: string): void {
  assert.equal(fs.readFileSync(path.join(root, "theirs/b/c/file"), "utf8"), "theirs/b/c");
  assert.equal(fs.statSync(path.join(root, "theirs/b")).mode & 0o777, 0o500);
}

test("removal does not follow a symbolic link that replaces a directory before the directory is opened", (t) => {
  const { root, fd } = treeAndTheirs(t);
  for (const step of removal(fd, Buffer.from("tree"))) {
    void step;
    if (!fs.existsSync(path.join(root, "tree/a"))) continue;
    if (fs.lstatSync(path.join(root, "tree/a")).isSymbolicLink()) continue;
    fs.renameSync(path.join(root, "tree/a"), path.join(root, "kept"));
    fs.symlinkSync("../theirs", path.join(root, "tree/a"));
  }
  assertUntouched(root);
  assert.deepEqual(fs.readdirSync(root).toSorted(), ["kept", "theirs"]);
});

test("removal does not follow a symbolic link that replaces a directory while the directory is emptied", (t) => {
  const { root, fd } = treeAndTheirs(t);
  const steps = removal(fd, Buffer.from("tree"));
  // That of `tree`, then that of `a`, which is open by now.
  steps.next();
  steps.next();
  fs.renameSync(path.join(root, "tree/a"), path.join(root, "kept"));
  fs.symlinkSync("../theirs", path.join(root, "tree/a"));
  assert.throws(() => {
    while (steps.next().done !== true);
  });
  assertUntouched(root);
  assert.deepEqual(fs.readdirSync(path.join(root, "kept")), []);
});

test("removeAll does not follow a symbolic link that replaces a directory during the removal", (t) => {
  const { root } = treeAndTheirs(t);
  let isSwapped = false;
  const swap = (): void => {
    if (isSwapped) return;
    isSwapped = true;
    fs.renameSync(path.join(root, "tree/a"), path.join(root, "kept"));
    fs.symlinkSync("../theirs", path.join(root, "tree/a"));
  };
  fs.chmodSync(path.join(root, "tree/a/b"), 0o500);
  const sys = syscalls();
  const openInside = sys.openInside!;
  t.mock.method(sys as { openInside: typeof openInside }, "openInside", (...args: Parameters<typeof openInside>) => {
    const [, names, at] = args;
    if (Buffer.from(names.bytes.subarray(at, at + 2)).equals(Buffer.from("b\0"))) swap();
    return openInside(...args);
  });
  try {
    removeAll(path.join(root, "tree"));
  } catch {
    // It was not removed by its name: that is a link by now.
  }
  t.mock.restoreAll();
  assert.equal(isSwapped, true);
  assertUntouched(root);
});

test("removal removes a tree 300 levels deep that contains a directory with mode 0", (t) => {
  const { root, fd } = treeAndTheirs(t);
  let at = path.join(root, "tree");
  for (let i = 0; i < 300; i++) {
    at = path.join(at, "d");
    fs.mkdirSync(at);
    fs.writeFileSync(path.join(at, "file"), "");
    if (i % 7 === 0) fs.symlinkSync("../../../theirs", path.join(at, "link"));
  }
  fs.mkdirSync(path.join(at, "closed/in"), { recursive: true });
  fs.chmodSync(path.join(at, "closed"), 0o000);
  const isRemoved = (): boolean => {
    const steps = removal(fd, Buffer.from("tree"));
    let step = steps.next();
    while (step.done !== true) step = steps.next();
    return step.value;
  };
  assert.equal(isRemoved(), true);
  assert.deepEqual(fs.readdirSync(root), ["theirs"]);
  assertUntouched(root);
  assert.equal(isRemoved(), true);
});

test("removal throws ENOTDIR and deletes nothing outside the tree if a directory is moved out of the tree", (t) => {
  const { root, fd } = treeAndTheirs(t);
  const branch = Array.from({ length: 100 }, () => "d").join("/");
  fs.mkdirSync(path.join(root, "tree", branch), { recursive: true });
  fs.writeFileSync(path.join(root, "tree/d/file"), "");
  fs.mkdirSync(path.join(root, "elsewhere"));
  let steps = 0;
  assert.throws(
    () => {
      for (const step of removal(fd, Buffer.from("tree"))) {
        void step;
        // By then those above are not open any more.
        if (++steps === 90) fs.renameSync(path.join(root, "tree/d/d/d"), path.join(root, "elsewhere/d"));
      }
    },
    { code: "ENOTDIR" },
  );
  assert.deepEqual(fs.readdirSync(path.join(root, "elsewhere")), ["d"]);
});

test("removeOnly removes a directory only if it has the expected inode", (t) => {
  const { root } = treeAndTheirs(t);
  const own = openDirectory(path.join(root, "tree"));
  const meant = identityOf(own);
  fs.closeSync(own);
  const isMeant = (found: Parameters<typeof isSameDirectory>[0]): boolean => isSameDirectory(found, meant);
  assert.equal(removeOnly(path.join(root, "theirs"), isMeant), false);
  fs.symlinkSync("tree", path.join(root, "link"));
  assert.equal(removeOnly(path.join(root, "link"), isMeant), false);
  assert.equal(removeOnly(path.join(root, "tree"), isMeant), true);
  assert.deepEqual(fs.readdirSync(root).toSorted(), ["link", "theirs"]);
  assertUntouched(root);
  assert.equal(removeOnly(path.join(root, "absent"), isMeant), true);
});

test("removeAll does not delete a subvolume behind a symbolic link that replaces a directory during the removal", async (t) => {
  const volume = loopFileSystem(t, "btrfs");
  if (volume === null || volume === undefined) return;
  const at = (name: string): Buffer => Buffer.from(path.join(volume.root, name));
  fs.mkdirSync(at("theirs"));
  fs.mkdirSync(at("tree/a"), { recursive: true });
  for (const name of ["theirs/s", "tree/a/0ro"]) {
    await makeSubvolume(at(name));
    fs.writeFileSync(path.join(volume.root, name, "file"), name);
  }
  fs.mkdirSync(at("tree/a/s"));
  const fd = openDirectory(at("tree/a/0ro"));
  await setReadOnly(fd, true);
  fs.closeSync(fd);
  let isSwapped = false;
  const swap = (): void => {
    if (isSwapped) return;
    isSwapped = true;
    fs.renameSync(at("tree/a"), at("kept"));
    fs.symlinkSync("../theirs", at("tree/a"));
  };
  const { lstatSync } = fs;
  t.mock.method(fs, "lstatSync", (...args: Parameters<typeof lstatSync>) => {
    if (String(args[0]).endsWith("tree/a/s")) swap();
    return lstatSync(...args);
  });
  const sys = syscalls();
  const { unlink } = sys;
  t.mock.method(sys, "unlink", (...args: Parameters<typeof unlink>) => {
    const [, names, name] = args;
    if (Buffer.from(names.bytes.subarray(name, name + 2)).equals(Buffer.from("s\0"))) swap();
    return unlink(...args);
  });
  try {
    removeAll(at("tree"));
  } catch {
    // What is there by now is a link.
  }
  t.mock.restoreAll();
  assert.equal(isSwapped, true);
  assert.equal(fs.readFileSync(at("theirs/s/file"), "utf8"), "theirs/s");
});

test("removeAll removes a tree that contains nested and read-only subvolumes", async (t) => {
  const volume = loopFileSystem(t, "btrfs");
  if (volume === null || volume === undefined) return;
  const at = (name: string): Buffer => Buffer.from(path.join(volume.root, name));
  fs.mkdirSync(at("tree/a"), { recursive: true });
  for (const name of ["tree/a/one", "tree/a/one/two", "tree/a/one/two/three", "tree/a/other"]) {
    await makeSubvolume(at(name));
    fs.writeFileSync(path.join(volume.root, name, "file"), name);
  }
  for (const name of ["tree/a/one/two/three", "tree/a/one/two", "tree/a/one"]) {
    const fd = openDirectory(at(name));
    await setReadOnly(fd, true);
    fs.closeSync(fd);
  }
  removeAll(at("tree"));
  assert.equal(fs.existsSync(at("tree")), false);
});
