import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { DIRECT, DirectReads } from "../../fs/linux/direct-reads.ts";
import { newStatBuffer, openDirectory, putName, syscalls } from "../../fs/linux/syscalls.ts";
import { newArena } from "../../native.ts";
import { loopFileSystem } from "../../../test/fixtures/loop-file-system.ts";
import { ReadAhead } from "./read-ahead.ts";
import type { EntryReader, OpenedAhead } from "./read-entry.ts";
import { AHEAD, AHEAD_BYTES, type ScanThread } from "./scan-thread.ts";

const FILES = 3 * AHEAD;

/** A folder of small files, every tenth one larger, and the parts of a scan's thread that reading ahead uses. */
function scene(t: TestContext, flags: number = fs.constants.O_RDONLY) {
  const disk = loopFileSystem(t, "ext4");
  if (disk === null) return null;
  const folder = path.join(disk.root, "folder");
  fs.mkdirSync(folder);
  const names: number[] = [];
  const arena = newArena(FILES * 8);
  for (let i = 0, at = 0; i < FILES; i++) {
    names.push(at);
    at = putName(arena, at, Buffer.from(String(i)));
    fs.writeFileSync(path.join(folder, String(i)), contentOf(i), { flush: true });
  }
  const sys = syscalls();
  const dirfd = openDirectory(folder);
  const direct = DirectReads.open(AHEAD, AHEAD_BYTES);
  assert.ok(direct !== null);
  t.after(() => {
    direct.close();
    fs.closeSync(dirfd);
  });
  const thread = {
    sys,
    stat: newStatBuffer(),
    stat2: newStatBuffer(),
    notes: { keptInMemory: 0 },
    look: (_directory: number, ...given: Parameters<typeof sys.stat>) => sys.stat(...given),
    fails: false,
    get direct() {
      return this.fails ? null : direct;
    },
    endDirectReads() {
      this.fails = true;
    },
  };
  const reader = {
    open: (at: number, from: typeof arena, name: number, isDirect = false) =>
      sys.open(at, from, name, isDirect ? flags | DIRECT : flags, 0),
  };
  const given = [thread as unknown as ScanThread, reader as unknown as EntryReader] as const;
  const take = (ahead: ReadAhead, i: number): OpenedAhead | undefined => {
    assert.equal(sys.stat(dirfd, arena, names[i]!, thread.stat), 0);
    return ahead.take(i, FILES);
  };
  return { folder, thread, take, ahead: () => new ReadAhead(...given, { directory: 0, dirfd, arena, names, from: 0 }) };
}

function contentOf(i: number): Buffer {
  return Buffer.alloc(i % 10 === 9 ? AHEAD_BYTES + 1 : 4000 + i, String(i));
}

function openFiles(): number {
  return fs.readdirSync("/proc/self/fd").length;
}

test("ReadAhead reads small files, leaves larger ones to the page cache, and closes those that nobody takes", (t) => {
  const at = scene(t);
  if (at === null) return;
  const before = openFiles();
  {
    using ahead = at.ahead();
    // Some are never taken: they vanished after the listing.
    for (let i = 0; i < FILES - AHEAD; i += i % 7 === 0 ? 3 : 1) {
      const { fd, content }: OpenedAhead = at.take(ahead, i)!;
      const isLarger = contentOf(i).length > AHEAD_BYTES;
      assert.equal(content === null, isLarger, String(i));
      if (content !== null) assert.ok(contentOf(i).equals(content), String(i));
      at.thread.sys.close(fd);
      assert.ok(openFiles() - before <= AHEAD + 1);
    }
  }
  assert.equal(openFiles(), before);
});

test("ReadAhead has no content of a file that was written to after its read began", (t) => {
  const at = scene(t);
  if (at === null) return;
  using ahead = at.ahead();
  at.thread.sys.close(at.take(ahead, 0)!.fd);
  fs.writeFileSync(path.join(at.folder, "1"), Buffer.alloc(contentOf(1).length, "x"));
  assert.equal(at.take(ahead, 1), undefined);
  at.thread.sys.close(at.take(ahead, 2)!.fd);
});

test("ReadAhead reads nothing directly after the file system has refused it once", (t) => {
  const at = scene(t, fs.constants.O_WRONLY);
  if (at === null) return;
  const before = openFiles();
  {
    using ahead = at.ahead();
    assert.equal(at.take(ahead, 0), undefined);
    assert.equal(at.thread.direct, null);
    assert.equal(at.take(ahead, 1), undefined);
    // Opened after the refusal.
    const later = at.take(ahead, AHEAD + 1)!;
    assert.equal(later.content, null);
    at.thread.sys.close(later.fd);
  }
  assert.equal(openFiles(), before);
});
