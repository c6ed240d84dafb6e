import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { describe, test, type TestContext } from "node:test";
import { setTimeout } from "node:timers/promises";
import { STAT, syscalls } from "../../fs/linux/syscalls.ts";
import { assertSame, notedPaths, temporaryFolder, TestStore } from "../../workspace/store/testing-store.ts";
import { giveBackThreads, takeThreads } from "../../threads/threads.ts";
import { nameAt } from "../../fs/listing.ts";
import { INLINE_BYTES } from "./scan-runner.ts";
import type { ScanResult } from "./scan.ts";
import { eachRecord } from "./summary.ts";
import { isYoungDirectory } from "./stat-words.ts";
import { MOVED_REASON, type ScanRequest } from "./task.ts";
import { patternsOfUnwanted } from "./unwanted.ts";

function pathsOf({ table, old }: ScanResult): string[] {
  const paths: string[] = [];
  eachRecord(table, old, ({ path: entryPath }) => paths.push(entryPath().toString()));
  return paths.toSorted();
}

/**
 * A store that has saved the folder, and saves it again on this thread: `before` and `after` are called as names are
 * looked at.
 */
async function savedOnce(
  t: TestContext,
  make: (root: string) => void,
  request: Partial<ScanRequest> = {},
): Promise<{
  root: string;
  again: (calls: {
    before?: (name: string) => void;
    after?: (name: string, stat: Uint32Array) => void;
  }) => Promise<ScanResult>;
  look: () => Promise<ScanResult>;
  /** a further save, by the stat cache */
  next: () => Promise<ScanResult>;
}> {
  const saves = await TestStore.create(t);
  const root = temporaryFolder(t);
  make(root);
  await saves.save(root);
  return {
    root,
    look: async () => saves.look(root),
    next: async () => {
      assert.ok(saves.cache() !== null, "the stat cache checks out");
      return saves.save(root);
    },
    again: async (calls) => {
      const sys = syscalls();
      const { stat } = sys;
      const held = await takeThreads({ kind: "scan", count: undefined, signal: undefined });
      const mocked = t.mock.method(sys, "stat", (...args: Parameters<typeof stat>) => {
        const name = Buffer.from(nameAt(args[1], args[2])).toString();
        calls.before?.(name);
        const result = stat(...args);
        calls.after?.(name, args[3].words);
        return result;
      });
      try {
        return await saves.save(root, { request });
      } finally {
        mocked.mock.restore();
        giveBackThreads(held);
      }
    },
  };
}

function assertWhole({ notes }: ScanResult): void {
  assert.deepEqual([notedPaths(notes.omitted), notedPaths(notes.torn)], [[], []]);
}

/** Writes files, each with its path as its content. */
function make(root: string, files: readonly string[]): void {
  for (const name of files) {
    fs.mkdirSync(path.dirname(path.join(root, name)), { recursive: true });
    fs.writeFileSync(path.join(root, name), name);
  }
}

/** Waits until a scan that begins then begins more than a tick of the clock after the last change of the folder. */
async function aged(root: string): Promise<void> {
  const all = ["", ...fs.readdirSync(root, { recursive: true, encoding: "utf8" })];
  const newest = Math.max(...all.map((name) => fs.lstatSync(path.join(root, name)).ctimeMs));
  while (Date.now() < newest + 60) await setTimeout(5);
}

/** A folder that was saved, and that is ready for a scan that lists the folders of `changed`, and no other ones. */
async function ready(
  t: TestContext,
  files: readonly string[],
  changed: readonly string[],
): Promise<Awaited<ReturnType<typeof savedOnce>> & { move: (from: string, to: string) => void }> {
  const saved = await savedOnce(t, (root) => make(root, files));
  const { root } = saved;
  // The save before this one listed the folders too soon after they were made.
  await aged(root);
  await saved.next();
  make(
    root,
    changed.map((name) => `${name}/0`),
  );
  await aged(root);
  return { ...saved, move: (from, to) => fs.renameSync(path.join(root, from), path.join(root, to)) };
}

/** Calls `work` at the first call with `name`. */
function once(name: string, work: () => void): (looked: string) => void {
  let isDone = false;
  return (looked) => {
    if (looked !== name || isDone) return;
    isDone = true;
    work();
  };
}

/** Fails unless two scans saw the same entries. Folders may have other times: they are as they were before the move. */
function assertSameState(actual: ScanResult, expected: ScanResult): void {
  assert.equal(Buffer.from(actual.state).toString("hex"), Buffer.from(expected.state).toString("hex"));
}

void describe("scan of entries that are renamed from one folder into another while it reads", () => {
  const files = ["a/1", "a/3", "b/2", "b/message"];
  const all = ["a", "a/0", "a/1", "a/3", "b", "b/0", "b/2"];

  test("scan saves a file that moves from a folder that is not listed yet into a listed one", async (t) => {
    const { again, look, next, move } = await ready(t, files, ["a", "b"]);
    const saved = await again({ before: once("1", () => move("b/message", "a/2")) });
    assert.deepEqual(pathsOf(saved), [...all, "a/2"].toSorted());
    assertWhole(saved);
    assertSameState(saved, await look());
    assertSame(await next(), await look());
  });

  for (const changed of [["b"], []])
    test(`scan saves a listed file that moves into a folder that was read before, with ${changed.length} changed folders`, async (t) => {
      const { again, look, move } = await ready(t, files, changed);
      const saved = await again({ before: once("2", () => move("b/message", "a/2")) });
      const found = ["a", "a/1", "a/2", "a/3", "b", ...changed.map((name) => `${name}/0`), "b/2"];
      assert.deepEqual(pathsOf(saved), found);
      assertWhole(saved);
      assertSameState(saved, await look());
    });

  test("scan saves a file under its new name only if it moves after it was read into a folder that is listed later", async (t) => {
    const { again, look, next, move } = await ready(t, files, ["b"]);
    const saved = await again({ before: once("3", () => move("a/1", "b/1")) });
    assert.deepEqual(pathsOf(saved), ["a", "a/3", "b", "b/0", "b/1", "b/2", "b/message"]);
    assertWhole(saved);
    assertSameState(saved, await look());
    assertSame(await next(), await look());
  });

  test("scan saves a folder under its new name only if it moves with its files after they were read", async (t) => {
    const deep = ["a/1", "a/sub/below/x", "a/sub/y", "b/2", "c/3"];
    const { again, look, next, move } = await ready(t, deep, ["a/sub", "b", "c"]);
    const saved = await again({ before: once("3", () => move("a/sub", "b/sub")) });
    const below = ["b/sub", "b/sub/0", "b/sub/below", "b/sub/below/x", "b/sub/y"];
    assert.deepEqual(pathsOf(saved), ["a", "a/1", "b", "b/0", "b/2", ...below, "c", "c/0", "c/3"]);
    assertWhole(saved);
    assertSameState(saved, await look());
    assertSame(await next(), await look());
  });

  test("scan saves a file that moves on each time that its new folder is about to be listed again", async (t) => {
    const { again, look, move } = await ready(t, ["a/1", "b/2", "c/3", "c/message"], ["a", "b", "c"]);
    const first = once("1", () => move("c/message", "a/new"));
    const second = once("new", () => move("a/new", "b/newer"));
    const saved = await again({
      before: (name) => {
        first(name);
        second(name);
      },
    });
    assert.equal(pathsOf(saved).includes("b/newer"), true);
    assertWhole(saved);
    assertSameState(saved, await look());
  });

  test("scan saves a file that leaves a folder which itself moves into another folder in a second look", async (t) => {
    const { root, again, look, move } = await ready(t, ["a/1", "b/2", "c/3", "c/sub/message"], ["a", "b", "c"]);
    const first = once("1", () => make(root, ["b/late"]));
    let isAgain = false;
    const second = once("b", () => move("c/sub", "b/sub"));
    const third = once("sub", () => move("b/sub/message", "a/moved"));
    const saved = await again({
      before: (name) => {
        first(name);
        // Only a second look asks for the folder itself.
        isAgain ||= name === ".";
        if (!isAgain) return;
        second(name);
        third(name);
      },
    });
    const found = ["a", "a/0", "a/1", "a/moved", "b", "b/0", "b/2", "b/late", "b/sub", "c", "c/0", "c/3"];
    assert.deepEqual(pathsOf(saved), found);
    assertWhole(saved);
    assertSameState(saved, await look());
  });

  test("scan saves the new entry that has the former name of a renamed one", async (t) => {
    const { root, again, look, move } = await ready(t, ["a/log", "a/old", "a/z"], ["a"]);
    const first = once("old", () => {
      fs.rmSync(path.join(root, "a/z"));
      make(root, ["a/zz"]);
    });
    const second = once("zz", () => {
      move("a/log", "a/zz");
      make(root, ["a/log"]);
    });
    const saved = await again({
      before: (name) => {
        first(name);
        second(name);
      },
    });
    assert.deepEqual(pathsOf(saved), ["a", "a/0", "a/log", "a/old", "a/zz"]);
    assertWhole(saved);
    assertSameState(saved, await look());
  });

  test("scan keeps two entries of which one has the inode number that the other one had", async (t) => {
    const { root, again } = await ready(t, ["a/first", "a/z"], ["a"]);
    // Symbolic links are looked at by name alone.
    fs.symlinkSync("first", path.join(root, "a/second"));
    await aged(root);
    const { ino } = fs.lstatSync(path.join(root, "a/first"));
    const saved = await again({
      before: once("second", () => fs.rmSync(path.join(root, "a/z"))),
      after: (name, words) => {
        if (name !== "second") return;
        words[STAT.INO] = ino;
        words[STAT.BIRTH_NS] = (words[STAT.BIRTH_NS]! + 1) % 1_000_000_000;
      },
    });
    assert.deepEqual(pathsOf(saved), ["a", "a/0", "a/first", "a/second"]);
    assertWhole(saved);
  });

  test("scan names the folders as torn if files keep moving between them", async (t) => {
    const { root, again, move } = await ready(t, files, ["a", "b"]);
    let [at, count] = ["b/message", 0];
    const saved = await again({
      before: (name) => {
        if (name !== path.basename(at)) return;
        const to = `${at.startsWith("a") ? "b" : "a"}/message-${++count}`;
        move(at, to);
        at = to;
      },
    });
    assert.equal(fs.existsSync(path.join(root, at)), true);
    assert.deepEqual([...new Set(saved.notes.torn.map(({ reason }) => reason))], [MOVED_REASON]);
  });

  test("scan is complete if a program makes files and folders in listed folders all the time", async (t) => {
    const { root, again } = await ready(t, files, ["a", "b"]);
    let count = 0;
    const saved = await again({ before: () => make(root, [`a/new-${++count}`, `b/new-${count}/file`]) });
    assert.equal(count > 5, true);
    assertWhole(saved);
  });

  test("scan saves a file that moves within one tick of a file system's clock", async (t) => {
    const { again, look, move } = await ready(t, files, ["a", "b"]);
    // A file system of whole seconds: the change time of a folder stays as it was when the folder was listed.
    const now = Math.floor(Date.now() / 1000);
    const coarse = (words: Uint32Array): void => {
      words[STAT.CTIME] = Math.min(words[STAT.CTIME]!, now);
      words[STAT.CTIME_NS] = words[STAT.MTIME_NS] = 0;
    };
    const sys = syscalls();
    const { fstat } = sys;
    const mocked = t.mock.method(sys, "fstat", (...args: Parameters<typeof fstat>) => {
      const result = fstat(...args);
      coarse(args[1].words);
      return result;
    });
    const move1 = once("1", () => move("b/message", "a/2"));
    const saved = await again({ before: move1, after: (_, words) => coarse(words) });
    mocked.mock.restore();
    assert.equal(pathsOf(saved).includes("a/2"), true);
    assertWhole(saved);
    assert.deepEqual(pathsOf(saved), pathsOf(await look()));
  });
});

void describe("scan of entries that are renamed or removed while it reads", () => {
  test("scan saves a file under its new name if it is renamed after it was listed", async (t) => {
    const { root, again, look } = await savedOnce(t, (at) => {
      for (const name of ["a", "m.1", "z"]) fs.writeFileSync(path.join(at, name), name);
    });
    fs.writeFileSync(path.join(root, "new"), "x");
    const seen: string[] = [];
    const saved = await again({
      before: (name) => {
        if (name === "m.1" && seen.push(name) === 1) fs.renameSync(path.join(root, "m.1"), path.join(root, "m.2"));
      },
    });
    assert.deepEqual(pathsOf(saved), ["a", "m.2", "new", "z"]);
    assertWhole(saved);
    assertSame(saved, await look());
  });

  test("scan leaves out a file that was unwanted when it was listed, also if an entry beside it is renamed and it shrinks", async (t) => {
    const unwanted = { tags: [], largest: 10, secrets: false };
    const large = "1".repeat(11);
    const { root, again } = await savedOnce(
      t,
      (at) => {
        for (const name of ["a", "d/m.1", "d/z"]) {
          fs.mkdirSync(path.dirname(path.join(at, name)), { recursive: true });
          fs.writeFileSync(path.join(at, name), name);
        }
      },
      { unwanted },
    );
    for (const name of ["big", "d/big"]) fs.writeFileSync(path.join(root, name), large);
    const seen: string[] = [];
    const saved = await again({
      before: (name) => {
        // The first look at a name is that of its size.
        if (name !== "m.1" || seen.push(name) !== 2) return;
        fs.renameSync(path.join(root, "d/m.1"), path.join(root, "d/m.2"));
        fs.writeFileSync(path.join(root, "d/big"), "1");
      },
    });
    assert.deepEqual(pathsOf(saved), ["a", "d", "d/m.2", "d/z"]);
    assert.deepEqual(patternsOfUnwanted(saved.notes.unwanted), ["/big", "/d/big"]);
    assertWhole(saved);
  });

  test("scan leaves out an unwanted file that is renamed after it was listed, and names it once", async (t) => {
    const { root, again } = await savedOnce(t, (at) => fs.writeFileSync(path.join(at, "m.1"), "1"), {
      unwanted: { tags: [], largest: 10, secrets: false },
    });
    fs.writeFileSync(path.join(root, "big"), "1".repeat(11));
    const seen: string[] = [];
    const saved = await again({
      before: (name) => {
        // The first look at a name is that of its size.
        if (name !== "m.1" || seen.push(name) !== 2) return;
        fs.renameSync(path.join(root, "m.1"), path.join(root, "m.2"));
        fs.renameSync(path.join(root, "big"), path.join(root, "large"));
      },
    });
    assert.deepEqual(pathsOf(saved), ["m.2"]);
    assert.deepEqual(patternsOfUnwanted(saved.notes.unwanted), ["/big", "/large"]);
    assertWhole(saved);
  });

  test("scan saves a file once if it is renamed after it was read", async (t) => {
    const { root, again } = await savedOnce(t, (at) => fs.writeFileSync(path.join(at, "x"), "x"));
    for (const name of ["a", "m", "z"]) fs.writeFileSync(path.join(root, name), name);
    const saved = await again({
      before: (name) => {
        if (name !== "z" || !fs.existsSync(path.join(root, "z"))) return;
        fs.renameSync(path.join(root, "a"), path.join(root, "b"));
        fs.renameSync(path.join(root, "m"), path.join(root, "a"));
        fs.renameSync(path.join(root, "z"), path.join(root, "m"));
      },
    });
    assert.deepEqual(pathsOf(saved), ["a", "b", "m", "x"]);
    assertWhole(saved);
  });

  test("scan is complete if a file is removed after it was listed", async (t) => {
    const { root, again, look } = await savedOnce(t, (at) => {
      for (const name of ["a", "gone"]) fs.writeFileSync(path.join(at, name), name);
    });
    const saved = await again({
      before: (name) => name === "gone" && fs.rmSync(path.join(root, name), { force: true }),
    });
    assert.deepEqual(pathsOf(saved), ["a"]);
    assertWhole(saved);
    assertSame(saved, await look());
  });

  test("scan saves a directory under its new name if it is renamed before it is read", async (t) => {
    const { root, again, look, next } = await savedOnce(t, (at) => {
      fs.mkdirSync(path.join(at, "top", "d", "below"), { recursive: true });
      for (const name of ["f", "d/g", "d/below/h"]) fs.writeFileSync(path.join(at, "top", name), name);
    });
    fs.writeFileSync(path.join(root, "top", "d", "new"), "x");
    const saved = await again({
      after: (name) => {
        if (name === "below" && fs.existsSync(path.join(root, "top")))
          fs.renameSync(path.join(root, "top"), path.join(root, "other"));
      },
    });
    const below = ["other", "other/d", "other/d/below", "other/d/below/h", "other/d/g", "other/d/new", "other/f"];
    assert.deepEqual(pathsOf(saved), below);
    assertWhole(saved);
    assertSame(saved, await look());
    assert.equal(saved.summarise().entries.directories, 3);
    assertSame(await next(), await look());
  });

  for (const more of [["new"], []])
    test(`scan saves a directory that is renamed and renamed back, with ${more.length} new entries beside it`, async (t) => {
      const { root, again, look, next } = await savedOnce(t, (at) => {
        fs.mkdirSync(path.join(at, "d/below"), { recursive: true });
        for (const name of ["d/f", "d/below/g"]) fs.writeFileSync(path.join(at, name), name);
      });
      for (const name of more) fs.writeFileSync(path.join(root, name), "x");
      const moved: string[] = [];
      const move = (from: string, to: string): void => {
        moved.push(to);
        fs.renameSync(path.join(root, from), path.join(root, to));
      };
      const saved = await again({
        after: (name) => name === "d" && moved.length === 0 && move("d", "e"),
        before: (name) => name === "e" && moved.length === 1 && move("e", "d"),
      });
      assert.deepEqual(moved, ["e", "d"]);
      assert.deepEqual(pathsOf(saved), ["d", "d/below", "d/below/g", "d/f", ...more]);
      assertWhole(saved);
      assertSame(saved, await look());
      assertSame(await next(), await look());
    });

  test("scan saves directories under their new names if their names are exchanged after they were read", async (t) => {
    const { root, again, look, next } = await savedOnce(t, (at) => fs.writeFileSync(path.join(at, "z"), "z"));
    for (const name of ["a", "b"]) {
      fs.mkdirSync(path.join(root, name));
      fs.writeFileSync(path.join(root, name, `of ${name}`), name);
    }
    let isMoved = false;
    const saved = await again({
      before: (name) => {
        if (name !== "of b" || isMoved) return;
        isMoved = true;
        fs.renameSync(path.join(root, "a"), path.join(root, "c"));
        fs.renameSync(path.join(root, "b"), path.join(root, "a"));
        fs.renameSync(path.join(root, "a/of b"), path.join(root, "a/of it"));
      },
    });
    assert.deepEqual(pathsOf(saved), ["a", "a/of it", "c", "c/of a", "z"]);
    assertWhole(saved);
    assertSame(saved, await look());
    assertSame(await next(), await look());
  });

  test("scan is complete if a directory is removed before it is read", async (t) => {
    const { root, again, look } = await savedOnce(t, (at) => {
      for (const name of ["keep", "work"]) fs.mkdirSync(path.join(at, name));
      for (const name of ["keep/f", "work/g"]) fs.writeFileSync(path.join(at, name), name);
    });
    const saved = await again({
      after: (name) => name === "work" && fs.rmSync(path.join(root, name), { recursive: true, force: true }),
    });
    assert.deepEqual(pathsOf(saved), ["keep", "keep/f"]);
    assertWhole(saved);
    assertSame(saved, await look());
  });

  test("scan names a directory as torn if a file in it is renamed at each reading", async (t) => {
    const { root, again } = await savedOnce(t, (at) => {
      fs.mkdirSync(path.join(at, "d"));
      for (const name of ["a", "d/m.1"]) fs.writeFileSync(path.join(at, name), name);
    });
    const saved = await again({
      before: (name) => {
        const at = path.join(root, "d", name);
        if (name.startsWith("m.") && fs.existsSync(at))
          fs.renameSync(at, name === "m.1" ? `${root}/d/m.2` : `${root}/d/m.1`);
      },
    });
    assert.deepEqual(pathsOf(saved), ["a", "d"]);
    assert.deepEqual(notedPaths(saved.notes.torn), ["d"]);
  });

  test("scan applies the ignore file of the first listing to a second listing of the same directory", async (t) => {
    const { root, again } = await savedOnce(t, (at) => {
      fs.mkdirSync(path.join(at, "d"));
      fs.writeFileSync(path.join(at, ".cairnignore"), "*.log\n");
      for (const name of ["a.log", "b", "z.1", "d/a.log", "d/b"]) fs.writeFileSync(path.join(at, name), name);
    });
    // Listed, not taken as it was.
    for (const name of ["new", "d/new"]) fs.writeFileSync(path.join(root, name), "x");
    fs.writeFileSync(path.join(root, ".other"), "# nothing\n");
    const saved = await again({
      before: (name) => {
        if (name !== "b" || !fs.existsSync(path.join(root, ".other"))) return;
        fs.renameSync(path.join(root, "z.1"), path.join(root, "z.2"));
        fs.renameSync(path.join(root, ".other"), path.join(root, ".cairnignore"));
      },
    });
    assert.deepEqual(pathsOf(saved), [".cairnignore", "b", "d", "d/b", "d/new", "new", "z.2"]);
    assert.deepEqual(
      saved.notes.ignoreFiles.map(({ text }) => Buffer.from(text).toString()),
      ["*.log\n"],
    );
  });

  test("scan leaves a large file that was renamed after it was listed to another thread", async (t) => {
    const { root, again, look } = await savedOnce(t, (at) => fs.writeFileSync(path.join(at, "a"), "a"));
    fs.writeFileSync(path.join(root, "m.part"), Buffer.alloc(INLINE_BYTES + 1, 1));
    const sys = syscalls();
    const { read } = sys;
    let bytes = 0;
    const reading = t.mock.method(sys, "read", (...args: Parameters<typeof read>) => {
      const result = read(...args);
      bytes += Math.max(result, 0);
      return result;
    });
    const saved = await again({
      before: (name) => {
        if (name === "m.part" && fs.existsSync(path.join(root, name)))
          fs.renameSync(path.join(root, name), path.join(root, "m"));
      },
    });
    reading.mock.restore();
    assert.deepEqual(pathsOf(saved), ["a", "m"]);
    assert.ok(bytes < INLINE_BYTES, `${bytes} bytes were read on this one`);
    assertWhole(saved);
    assertSame(saved, await look());
  });
});

test("isYoungDirectory counts the time for which a network file system may leave a directory's times", () => {
  const now = Date.now();
  const words = new Uint32Array(64);
  const changed = now - 150;
  words[STAT.CTIME] = Math.floor(changed / 1000);
  words[STAT.CTIME_NS] = (changed % 1000) * 1_000_000 + 1;
  assert.deepEqual(
    [true, false].map((keepsTimes) => isYoungDirectory(words, now, keepsTimes)),
    [false, true],
  );
});
