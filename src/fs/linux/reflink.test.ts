import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { describe, test } from "node:test";
import { type LoopFileSystem, loopFileSystem } from "../../../test/fixtures/loop-file-system.ts";
import { newArena } from "../../native.ts";
import { cloneAnswer, cloneFile, cloneTo, extentCount, isOtherFileSystem } from "./reflink.ts";
import { EEXIST } from "./errno.ts";
import type { Syscalls } from "./syscall-abi.ts";
import { inDirectory, putName, syscalls } from "./syscalls.ts";

/** Runs with two open files of the file system, the first with 1 MiB of content. */
function withFiles(volume: LoopFileSystem, work: (from: number, to: number) => void): void {
  const from = fs.openSync(path.join(volume.root, "from"), "w+");
  const to = fs.openSync(path.join(volume.root, "to"), "w+");
  try {
    fs.writeSync(from, Buffer.alloc(1 << 20, "content"));
    work(from, to);
  } finally {
    fs.closeSync(from);
    fs.closeSync(to);
  }
}

function cloneIn(volume: LoopFileSystem, sys: Syscalls, from: number, name: string): number {
  const names = newArena(64);
  putName(names, 0, Buffer.from(name));
  return inDirectory(volume.root, (directory) => cloneTo(sys, from, { directory, names, name: 0 }));
}

void describe("clones of files", () => {
  for (const kind of ["xfs", "btrfs"] as const) {
    test(`cloneFile on ${kind} copies the content without using disk space`, (t) => {
      const volume = loopFileSystem(t, kind);
      if (volume === null) return;
      withFiles(volume, (from, to) => {
        fs.fsyncSync(from);
        const before = fs.statfsSync(volume.root).bfree;
        const result = cloneFile(from, to);
        assert.equal(cloneAnswer(result), "cloned");
        fs.fsyncSync(to);
        assert.deepEqual(fs.readFileSync(path.join(volume.root, "to")), Buffer.alloc(1 << 20, "content"));
        const used = (before - fs.statfsSync(volume.root).bfree) * fs.statfsSync(volume.root).bsize;
        assert.ok(used < 1 << 19, `took ${used} bytes`);
      });
    });
  }

  const sys = syscalls();
  test("cloneTo makes a file that belongs to this user and uses no disk space", (t) => {
    const volume = loopFileSystem(t, "xfs");
    if (volume === null) return;
    withFiles(volume, (from) => {
      fs.fsyncSync(from);
      const before = fs.statfsSync(volume.root).bfree;
      const clone = cloneIn(volume, sys, from, "clone");
      assert.ok(clone >= 0, `${clone}`);
      const { uid, gid, size } = fs.fstatSync(clone);
      assert.deepEqual([uid, gid, size], [process.geteuid!(), process.getegid!(), 1 << 20]);
      assert.deepEqual(fs.readFileSync(path.join(volume.root, "clone")), Buffer.alloc(1 << 20, "content"));
      sys.close(clone);
      const used = (before - fs.statfsSync(volume.root).bfree) * fs.statfsSync(volume.root).bsize;
      assert.ok(used < 1 << 19, `took ${used} bytes`);
      assert.equal(cloneIn(volume, sys, from, "clone"), EEXIST);
    });
    const none = loopFileSystem(t, "ext4");
    if (none === null) return;
    withFiles(none, (from) => {
      assert.equal(cloneAnswer(cloneIn(none, sys, from, "clone")), "refused");
      assert.ok(!fs.existsSync(path.join(none.root, "clone")));
    });
  });

  test("cloneFile is refused and writes nothing on a file system without reflinks", (t) => {
    const volume = loopFileSystem(t, "ext4");
    if (volume === null) return;
    withFiles(volume, (from, to) => {
      assert.equal(cloneAnswer(cloneFile(from, to)), "refused");
      assert.equal(fs.fstatSync(to).size, 0);
    });
  });

  test("cloneFile between two file systems is refused, and isOtherFileSystem recognizes the reason", (t) => {
    const [one, other] = [loopFileSystem(t, "xfs"), loopFileSystem(t, "btrfs")];
    if (one === null || other === null) return;
    withFiles(one, (from) =>
      withFiles(other, (_, to) => {
        const result = cloneFile(from, to);
        assert.equal(cloneAnswer(result), "refused");
        assert.ok(isOtherFileSystem(result));
      }),
    );
  });

  test("extentCount returns about as many extents as a fragmented file has", (t) => {
    const volume = loopFileSystem(t, "xfs");
    if (volume === null) return;
    withFiles(volume, (from, to) => {
      for (let i = 0; i < 50; i++) fs.writeSync(to, Buffer.alloc(4096, 1), 0, 4096, i * 8192);
      fs.fsyncSync(from);
      fs.fsyncSync(to);
      // Space that was reserved between them may count too.
      const many = extentCount(to);
      assert.ok(many >= 50 && many <= 100, `${many}`);
      const few = extentCount(from);
      assert.ok(few >= 1 && few < 10, `${few}`);
    });
  });
});
