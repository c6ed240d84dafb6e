import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { indexKey, packedRefs, withLost, withoutPacked } from "./git-files.ts";

const skip = spawnSync("git", ["--version"]).status === 0 ? false : "there is no git here";

test(
  "indexKey stays equal at new stat data and another version, and differs at other entries and flags",
  { skip },
  (t) => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-index-"));
    t.after(() => fs.rmSync(folder, { recursive: true }));
    const git = (...args: string[]): void => {
      const { status, stderr } = spawnSync("git", args, { cwd: folder, encoding: "utf8" });
      assert.equal(status, 0, stderr);
    };
    const read = (): Buffer => fs.readFileSync(path.join(folder, ".git/index"));
    const write = (name: string, content: string): void => fs.writeFileSync(path.join(folder, name), content);
    git("init", "-q");
    for (const name of ["a", "ab", "b", "x".repeat(200)]) write(name, name);
    git("add", "-A");
    const [key, bytes] = [indexKey(read()), read()];
    assert.match(key, /^entries /);
    fs.utimesSync(path.join(folder, "a"), 1, 1);
    git("update-index", "--refresh");
    assert.notDeepEqual(read(), bytes);
    assert.equal(indexKey(read()), key);
    git("update-index", "--index-version", "4");
    assert.equal(read().readUInt32BE(4), 4);
    assert.equal(indexKey(read()), key);
    git("update-index", "--skip-worktree", "a");
    const flagged = indexKey(read());
    assert.match(flagged, /^entries /);
    assert.notEqual(flagged, key);
    git("update-index", "--no-skip-worktree", "a");
    git("update-index", "--assume-unchanged", "b");
    assert.notEqual(indexKey(read()), key);
    git("update-index", "--no-assume-unchanged", "b");
    git("update-index", "--index-version", "2");
    assert.equal(indexKey(read()), key);
    write("new", "new");
    git("add", "-N", "new");
    assert.equal(read().readUInt32BE(4), 3);
    assert.match(indexKey(read()), /^entries /);
    assert.notEqual(indexKey(read()), key);
    git("update-index", "--split-index");
    assert.match(indexKey(read()), /^bytes /);
  },
);

test("an index with SHA-256 names, and every damaged index, counts by its bytes", { skip }, (t) => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-index-"));
  t.after(() => fs.rmSync(folder, { recursive: true }));
  const { status } = spawnSync("git", ["init", "-q", "--object-format=sha256"], { cwd: folder });
  if (status !== 0) return void t.skip("this git has no SHA-256");
  fs.writeFileSync(path.join(folder, "a"), "a");
  spawnSync("git", ["add", "a"], { cwd: folder });
  const bytes = fs.readFileSync(path.join(folder, ".git/index"));
  assert.match(indexKey(bytes), /^bytes /);
  for (let length = 0; length < bytes.length; length++)
    assert.match(indexKey(bytes.subarray(0, length)), /^bytes /, String(length));
  // Without a checksum the entries alone must tell.
  for (let i = 4; i < bytes.length - 32; i++) {
    const damaged = Buffer.concat([bytes.subarray(0, i), Buffer.of(bytes[i]! ^ 0xff), bytes.subarray(i + 1)]).fill(
      0,
      bytes.length - 32,
    );
    indexKey(damaged);
  }
});

test("withoutPacked removes refs with their peeled values, and withLost puts lost lines where they were", () => {
  const [a, b] = ["a".repeat(40), "b".repeat(40)];
  const text = `# pack-refs with: peeled \n${a} refs/heads/x\n${a} refs/tags/t\n^${b}\n${b} refs/heads/y\n`;
  assert.deepEqual([...packedRefs(text).keys()], ["refs/heads/x", "refs/tags/t", "refs/heads/y"]);
  assert.equal(
    withoutPacked(text, new Set(["refs/tags/t"])),
    `# pack-refs with: peeled \n${a} refs/heads/x\n${b} refs/heads/y\n`,
  );
  assert.deepEqual(withLost(["1", "4"], ["1", "2", "3"], ["2", "3"]), ["1", "2", "3", "4"]);
});
