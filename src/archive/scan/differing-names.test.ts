import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, test, type TestContext } from "node:test";
import type { GrantedThread } from "../../threads/worker-thread.ts";
import { giveBackThreads, takeThreads, threadsAreWarm } from "../../threads/threads.ts";
import {
  assertRestored,
  assertSame,
  notedPaths,
  type Saved,
  temporaryFolder,
  TestStore,
} from "../../workspace/store/testing-store.ts";
import { EntryReader, type EntryToRead } from "./read-entry.ts";

interface Case {
  saves: TestStore;
  root: string;
  at: (name: string) => string;
}

/** A folder in which `b` and `z` are one file, saved. */
async function linkedFolder(t: TestContext): Promise<Case> {
  const saves = await TestStore.create(t);
  const root = temporaryFolder(t);
  const at = (name: string): string => path.join(root, name);
  fs.mkdirSync(at("y"));
  fs.writeFileSync(at("b"), "first line\n");
  fs.linkSync(at("b"), at("y/z"));
  await sleep(60);
  await saves.save(root);
  return { saves, root, at };
}

/** Saves without other threads. */
async function saveHere({ saves, root }: Case): Promise<Saved> {
  const held: GrantedThread[] = [];
  try {
    while (threadsAreWarm()) held.push(...(await takeThreads({ kind: "scan" })));
    return await saves.save(root);
  } finally {
    giveBackThreads(held);
  }
}

/** Has something done when the second of two names is about to be read. */
function beforeReading(t: TestContext, name: string, action: () => void): void {
  const { read } = EntryReader.prototype;
  let isDone = false;
  t.mock.method(EntryReader.prototype, "read", function (this: EntryReader, entry: EntryToRead) {
    const { bytes } = entry.names;
    const own = Buffer.from(bytes.subarray(entry.name, bytes.indexOf(0, entry.name))).toString();
    if (own === name && !isDone) {
      isDone = true;
      action();
    }
    return read.call(this, entry);
  });
  t.after(() => assert.ok(isDone, "it was read"));
}

async function contentOf(t: TestContext, saves: TestStore, saved: Saved): Promise<Record<string, string>> {
  const target = temporaryFolder(t);
  await saves.write(saved, target);
  const content: Record<string, string> = {};
  for (const name of fs.readdirSync(target, { recursive: true, encoding: "utf8" }))
    if (fs.statSync(path.join(target, name)).isFile()) content[name] = fs.readFileSync(path.join(target, name), "utf8");
  assertRestored(await saves.look(target), saved, "the restored folder is the saved one");
  return content;
}

function membersIn(saved: Saved): number[] {
  return [...saved.groups.values()].map(({ members }) => members);
}

void describe("scan of hard links whose file changes between two readings", () => {
  test("scan records the latest content for all names if the file is written to between the readings", async (t) => {
    const folder = await linkedFolder(t);
    const { saves, root, at } = folder;
    fs.appendFileSync(at("b"), "second line\n");
    beforeReading(t, "z", () => {
      // Another tick of the kernel's clock.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 30);
      fs.appendFileSync(at("b"), "third line\n");
    });
    const saved = await saveHere(folder);
    assert.deepEqual(membersIn(saved), [2]);
    assert.deepEqual(notedPaths(saved.notes.torn), []);
    const content = "first line\nsecond line\nthird line\n";
    assert.deepEqual(await contentOf(t, saves, saved), { b: content, "y/z": content });
    assertSame(await saves.look(root), saved);
    assertSame(await saves.save(root), saved, "by its cache");
  });

  test("scan keeps each name's own content and names the links as torn if the latest reading is uncertain", async (t) => {
    const folder = await linkedFolder(t);
    const { saves, at } = folder;
    fs.renameSync(at("b"), at("y/b"));
    fs.linkSync(at("y/z"), at("a"));
    beforeReading(t, "z", () => fs.writeFileSync(at("a"), "FIRST LINE\n"));
    const { lstatSync } = fs;
    t.mock.method(fs, "lstatSync", (file: string, options: fs.StatOptions & { bigint: true }) => {
      const found = lstatSync(file, options);
      // As where no time of birth is kept: then it is that of the last change.
      found.birthtimeNs = found.ctimeNs;
      return found;
    });
    const saved = await saveHere(folder);
    assert.deepEqual(membersIn(saved), [2]);
    assert.deepEqual(notedPaths(saved.notes.torn), ["a", "y/b", "y/z"]);
    assert.deepEqual(await contentOf(t, saves, saved), {
      a: "first line\n",
      "y/b": "first line\n",
      "y/z": "FIRST LINE\n",
    });
  });

  test("scan keeps two files apart if one gets the former inode number of the other", async (t) => {
    const folder = await linkedFolder(t);
    const { saves, at } = folder;
    fs.appendFileSync(at("b"), "second line\n");
    const { ino } = fs.statSync(at("b"));
    beforeReading(t, "z", () => {
      for (const name of ["b", "y/z"]) fs.rmSync(at(name));
      for (let i = 0; i < 1000; i++) {
        fs.writeFileSync(at("y/z"), "another file\n");
        if (fs.statSync(at("y/z")).ino === ino) return fs.linkSync(at("y/z"), at("c"));
        fs.renameSync(at("y/z"), at(`y/other-${i}`));
      }
    });
    const saved = await saveHere(folder);
    if (fs.statSync(at("y/z"), { throwIfNoEntry: false })?.ino !== ino) return t.skip("the number is not given again");
    const content = await contentOf(t, saves, saved);
    assert.equal(content["b"], "first line\nsecond line\n");
    assert.equal(content["y/z"], "another file\n");
    assert.deepEqual(membersIn(saved), []);
    assert.deepEqual(notedPaths(saved.notes.torn), []);
  });
});
