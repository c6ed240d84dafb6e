import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { describe, test } from "node:test";
import { loopFileSystem, type LoopKind } from "../../test/fixtures/loop-file-system.ts";
import { openDirectory, putName, syscalls } from "../fs/linux/syscalls.ts";
import { newArena } from "../native.ts";
import { setAttribute } from "../workspace/store/testing-edits.ts";
import { temporaryFolder } from "../workspace/store/testing-store.ts";
import { type CloneOutcome, EntryCloner } from "./clone-entry.ts";
import { CloneLinks, newSharedLinks, type CloneTask } from "./clone-links.ts";
import { WorkPool } from "../threads/work-pool.ts";

/** Clones files of a folder into another one, in the order in which they are named. */
function clonesOf(from: string, to: string): { clone: (...names: string[]) => void; end: () => CloneOutcome } {
  const links = newSharedLinks(1000);
  const pool = WorkPool.create(1);
  const task: CloneTask = {
    from: Buffer.from(from),
    to: Buffer.from(to),
    began: Date.now(),
    extentLimit: 1000,
    newBits: 0o600,
    origins: false,
    pool: pool.shared,
    links,
  };
  const [source, target] = [openDirectory(from), openDirectory(to)];
  const cloner = new EntryCloner(task, { pool, links: new CloneLinks(links), target });
  const arena = newArena(256);
  return {
    clone: (...names) => {
      for (const name of names) {
        putName(arena, 0, Buffer.from(name));
        cloner.file({ path: new Uint8Array(0), from: source, to: target, device: 0 }, arena, 0);
      }
    },
    end: () => {
      cloner.close();
      for (const fd of [source, target]) fs.closeSync(fd);
      return cloner.outcome();
    },
  };
}

void describe("clone of files with several names", () => {
  for (const kind of ["xfs", "ext4"] satisfies LoopKind[])
    test(`a new file with the inode number of a removed one is cloned on its own, on ${kind}`, (t) => {
      const volume = loopFileSystem(t, kind);
      if (volume === null) return;
      const [from, to] = ["from", "to"].map((name) => path.join(volume.root, name)) as [string, string];
      for (const folder of [from, to]) fs.mkdirSync(folder);
      const at = (name: string): string => path.join(from, name);
      fs.writeFileSync(at("a"), "the first");
      fs.linkSync(at("a"), at("b"));
      const clones = clonesOf(from, to);
      clones.clone("a", "b");
      const { ino } = fs.statSync(at("a"));
      for (const name of ["a", "b"]) fs.rmSync(at(name));
      for (let i = 0; i < 100; i++) {
        fs.writeFileSync(at("c"), "the other");
        if (fs.statSync(at("c")).ino === ino) break;
        fs.renameSync(at("c"), at(`c${i}`));
      }
      if (fs.statSync(at("c"), { throwIfNoEntry: false })?.ino !== ino) return t.skip("the number is not given again");
      fs.linkSync(at("c"), at("d"));
      clones.clone("c", "d");
      assert.equal(clones.end().linked, 2);
      for (const [name, content] of Object.entries({ a: "the first", b: "the first", c: "the other", d: "the other" }))
        assert.equal(fs.readFileSync(path.join(to, name), "utf8"), content, name);
    });

  test("hard links stay one clone if the file gets another link between them", (t) => {
    const volume = loopFileSystem(t, "xfs");
    if (volume === null) return;
    const [from, to] = ["from", "to"].map((name) => path.join(volume.root, name)) as [string, string];
    for (const folder of [from, to]) fs.mkdirSync(folder);
    fs.writeFileSync(path.join(from, "a"), "content");
    fs.linkSync(path.join(from, "a"), path.join(from, "b"));
    const clones = clonesOf(from, to);
    clones.clone("a");
    fs.linkSync(path.join(from, "a"), path.join(from, "c"));
    clones.clone("b", "c");
    assert.equal(clones.end().linked, 2);
    assert.equal(fs.statSync(path.join(to, "a")).nlink, 3);
  });
});

test("a clone lacks attributes, and is listed, if the attributes of its source cannot be read", (t) => {
  const { EIO, ENODATA } = os.constants.errno;
  for (const call of ["flistxattr", "fgetxattr"] as const)
    for (const errno of [EIO, ENODATA]) {
      const [from, to] = [temporaryFolder(t), temporaryFolder(t)];
      fs.writeFileSync(path.join(from, "a"), "content");
      setAttribute(path.join(from, "a"), "user.one", "1");
      const clones = clonesOf(from, to);
      const { mock } = t.mock.method(syscalls(), call, () => -errno);
      clones.clone("a");
      mock.restore();
      const { notSet, entries } = clones.end();
      assert.equal(entries, 1);
      assert.deepEqual(
        notSet.map(({ path: where, aspects }) => [Buffer.from(where).toString(), aspects]),
        errno === EIO ? [["a", ["xattrs"]]] : [],
        `${call} ${errno}`,
      );
    }
});

void describe("clone of databases in use", () => {
  test("a database that changed after the clone began is listed although it has no journal any more", (t) => {
    const volume = loopFileSystem(t, "xfs");
    if (volume === null) return;
    const [from, to] = ["from", "to"].map((name) => path.join(volume.root, name)) as [string, string];
    for (const folder of [from, to]) fs.mkdirSync(folder);
    const at = (name: string): string => path.join(from, name);
    const page = Buffer.alloc(1024);
    page.write("SQLite format 3\0", "latin1");
    fs.writeFileSync(at("old.db"), page);
    // Until the clock of the file system has gone on.
    while (fs.statSync(to, { bigint: true }).ctimeNs <= fs.statSync(at("old.db"), { bigint: true }).ctimeNs)
      fs.chmodSync(to, 0o755);
    const clones = clonesOf(from, to);
    fs.writeFileSync(at("new.db"), page);
    fs.writeFileSync(at("other"), Buffer.alloc(1024, "x"));
    fs.writeFileSync(at("cut.db-journal"), "");
    clones.clone("old.db", "new.db", "other", "cut.db-journal", "gone.db-journal");
    const { logs, torn } = clones.end();
    const told = [logs, torn].map((paths) => paths.map((each) => Buffer.from(each).toString()));
    assert.deepEqual(told, [["new.db", "cut.db-journal", "gone.db-journal"], []]);
  });
});
