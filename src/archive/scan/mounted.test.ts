import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { describe, test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { keepsContentTimes } from "../../fs/linux/mounts.ts";
import { assertSame, temporaryFolder, TestStore } from "../../workspace/store/testing-store.ts";

/** Mounts file systems for one test. Made before the folder, so that they are gone before the folder goes. */
class Mounts {
  readonly #points: string[] = [];

  constructor(t: TestContext) {
    t.after(() => {
      for (const at of this.#points.reverse()) spawnSync("umount", ["--lazy", at], { stdio: "ignore" });
    });
  }

  /** False where that is not allowed. */
  add(at: string, ...args: string[]): boolean {
    fs.mkdirSync(at, { recursive: true });
    if (spawnSync("mount", [...args, at], { stdio: "ignore" }).status !== 0) return false;
    this.#points.push(at);
    return true;
  }
}

function text(paths: readonly Uint8Array[]): string[] {
  return paths.map((each) => Buffer.from(each).toString()).toSorted();
}

void describe("scan of a folder with mounted file systems", () => {
  test("scan lists mount points and leaves them out unless it crosses mounts", async (t) => {
    const saves = await TestStore.create(t);
    const mounts = new Mounts(t);
    const root = temporaryFolder(t);
    fs.mkdirSync(path.join(root, "dir/inner"), { recursive: true });
    fs.writeFileSync(path.join(root, "dir/inner/file"), "x");
    const bare = await saves.save(root);
    if (!mounts.add(path.join(root, "dir/mounted"), "-t", "tmpfs", "none")) return t.skip("mounting is not allowed");
    fs.writeFileSync(path.join(root, "dir/mounted/there"), "y");
    // The same file system once more is a mount too.
    assert.ok(mounts.add(path.join(root, "again"), "--bind", path.join(root, "dir/inner")));
    for (let i = 0; i < 2; i++) {
      const saved = await saves.save(root);
      assert.deepEqual(text(saved.notes.mounts), ["again", "dir/mounted"]);
      assert.deepEqual(saved.state, bare.state, "as if they were not there");
      assertSame(saved, await saves.look(root));
    }
    const all = await saves.save(root, { request: { crossMounts: true } });
    assert.deepEqual(all.notes.mounts, []);
    assert.deepEqual(all.summary.entries, { files: 3, directories: 4, links: 0, other: 0 });
    assertSame(all, await saves.look(root, { request: { crossMounts: true } }));
    assertSame(await saves.save(root), await saves.look(root), "left out again");
  });

  test("scan reads files on a tmpfs again although their times are unchanged, but not files on a disk", async (t) => {
    const mounts = new Mounts(t);
    const [disk, memory] = [temporaryFolder(t), fs.mkdtempSync("/dev/shm/cairn-scan-")];
    t.after(() => fs.rmSync(memory, { recursive: true }));
    if (!keepsContentTimes(Buffer.from(disk))) return t.skip("each file is read again");
    if (keepsContentTimes(Buffer.from(memory))) return t.skip("/dev/shm is no tmpfs");
    const isMounted = mounts.add(path.join(disk, "mounted"), "-t", "tmpfs", "none");
    fs.mkdirSync(path.join(memory, "mounted"));
    for (const root of [disk, memory])
      for (const name of ["file", "mounted/file"]) fs.writeFileSync(path.join(root, name), name);
    await sleep(60);
    const now = Date.now();
    t.mock.method(Date, "now", () => now + 120_000);
    for (const [root, reads] of [
      [disk, isMounted ? 1 : 0],
      [memory, 2],
    ] as const) {
      const saves = await TestStore.create(t);
      const request = { crossMounts: root === disk };
      await saves.save(root, { request });
      assert.equal((await saves.save(root, { request })).notes.filesRead, reads, root);
    }
  });

  test("scan keeps files of two file systems with equal inode numbers apart", async (t) => {
    const saves = await TestStore.create(t);
    const mounts = new Mounts(t);
    const root = temporaryFolder(t);
    for (const name of ["a", "b"]) {
      if (!mounts.add(path.join(root, name), "-t", "tmpfs", "none")) return t.skip("mounting is not allowed");
      fs.writeFileSync(path.join(root, name, "file"), `content of ${name}`);
      fs.linkSync(path.join(root, name, "file"), path.join(root, name, "linked"));
    }
    const [a, b] = ["a", "b"].map((name) => fs.statSync(path.join(root, name, "file")).ino);
    if (a !== b) return t.skip("the numbers differ here");
    const saved = await saves.save(root, { request: { crossMounts: true } });
    assertSame(saved, await saves.save(root, { request: { crossMounts: true } }));
    assert.deepEqual(
      [...saved.groups.values()].map((group) => group.members),
      [2, 2],
    );
    const target = temporaryFolder(t);
    await saves.write(saved, target);
    for (const name of ["a/file", "a/linked", "b/file", "b/linked"]) {
      assert.equal(fs.readFileSync(path.join(target, name), "utf8"), `content of ${name[0]}`);
    }
  });

  test("scan keeps files of two overlay layers with equal inode numbers apart", async (t) => {
    const saves = await TestStore.create(t);
    const mounts = new Mounts(t);
    const work = temporaryFolder(t);
    for (const layer of ["lower", "upper"]) {
      const at = path.join(work, layer);
      if (!mounts.add(at, "-t", "tmpfs", "none")) return t.skip("mounting is not allowed");
      for (const name of ["files", "work"]) fs.mkdirSync(path.join(at, name));
      fs.writeFileSync(path.join(at, "files", `${layer}-a`), `content of ${layer}`);
      fs.linkSync(path.join(at, "files", `${layer}-a`), path.join(at, "files", `${layer}-b`));
    }
    const layers = `lowerdir=${work}/lower/files,upperdir=${work}/upper/files,workdir=${work}/upper/work,xino=off`;
    const root = path.join(work, "merged");
    if (!mounts.add(root, "-t", "overlay", "none", "-o", layers)) return t.skip("no overlay can be mounted");
    const [a, b] = ["lower-a", "upper-a"].map((name) => fs.statSync(path.join(root, name)));
    if (a!.ino !== b!.ino || a!.dev === b!.dev) return t.skip("the numbers differ here");
    const saved = await saves.save(root);
    assert.deepEqual(
      [...saved.groups.values()].map(({ members, first }) => [members, Buffer.from(first).toString()]),
      [
        [2, "lower-a"],
        [2, "upper-a"],
      ],
    );
    assertSame(saved, await saves.look(root));
    // Of one directory some entries are as they were, and others are not.
    fs.linkSync(path.join(root, "upper-a"), path.join(root, "upper-c"));
    const more = await saves.save(root);
    assertSame(more, await saves.look(root));
    assertSame(more, await saves.save(root), "by its cache");
    assert.deepEqual(
      [...more.groups.values()].map(({ members }) => members),
      [2, 3],
    );
    const target = temporaryFolder(t);
    await saves.write(saved, target);
    for (const name of ["lower-a", "lower-b", "upper-a", "upper-b"])
      assert.equal(fs.readFileSync(path.join(target, name), "utf8"), `content of ${name.slice(0, 5)}`);
  });
});
