import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { describe, test, type TestContext } from "node:test";
import { openDirectory, syscalls } from "../fs/linux/syscalls.ts";
import { nameAt } from "../fs/listing.ts";
import { temporaryFolder } from "../workspace/store/testing-store.ts";
import { whyMoved } from "./clone-settled.ts";
import { renamedAway } from "./clone-tree.ts";
import { DirectoryCloner } from "./clone-directories.ts";
import type { CloneOutcome } from "./clone-entry.ts";
import { newSharedLinks } from "./clone-links.ts";
import { WorkPool } from "../threads/work-pool.ts";

/** Clones on this thread, copying where nothing can be cloned; `before` is called as a name of the source is opened. */
function cloned(
  t: TestContext,
  make: (from: string) => void,
  before: (name: string, from: string) => void,
): { from: string; to: string; outcome: CloneOutcome } {
  const [from, to] = [temporaryFolder(t), temporaryFolder(t)];
  make(from);
  const sys = syscalls();
  const { open } = sys;
  const mocked = t.mock.method(sys, "open", (...args: Parameters<typeof open>) => {
    const name = Buffer.from(nameAt(args[1], args[2])).toString();
    if ((args[3] & fs.constants.O_CREAT) === 0) before(name, from);
    return open(...args);
  });
  const cloner = new DirectoryCloner({
    from: Buffer.from(from),
    to: Buffer.from(to),
    began: Date.now(),
    extentLimit: 1000,
    newBits: 0o777,
    origins: true,
    pool: WorkPool.create(1).shared,
    links: newSharedLinks(100),
  });
  const outcome = cloner.run();
  mocked.mock.restore();
  return { from, to, outcome };
}

/** All entries by path, files with their content. */
function entriesOf(folder: string): Record<string, string> {
  const entries = fs.readdirSync(folder, { recursive: true, encoding: "utf8" }).toSorted();
  return Object.fromEntries(
    entries.map((name) => {
      const at = path.join(folder, name);
      return [name, fs.statSync(at).isFile() ? fs.readFileSync(at, "utf8") : ""];
    }),
  );
}

function write(folder: string, ...names: string[]): void {
  for (const name of names) fs.writeFileSync(path.join(folder, name), `of ${name}`);
}

function moveOnce(folder: string, from: string, to: string): void {
  const at = path.join(folder, from);
  if (fs.existsSync(at)) fs.renameSync(at, path.join(folder, to));
}

void describe("clone of entries that are renamed or removed meanwhile", () => {
  test("DirectoryCloner clones a file under its new name if it is renamed after it was listed", (t) => {
    const { from, to, outcome } = cloned(
      t,
      (at) => write(at, "a", "m.1", "z"),
      (name, at) => name === "m.1" && moveOnce(at, "m.1", "m.2"),
    );
    assert.deepEqual(entriesOf(to), entriesOf(from));
    assert.deepEqual([outcome.torn, outcome.omitted], [[], []]);
  });

  test("DirectoryCloner clones a file once if it is renamed after it was cloned", (t) => {
    const { from, to, outcome } = cloned(
      t,
      (at) => write(at, "a", "x", "z"),
      (name, at) => {
        if (name !== "z" || !fs.existsSync(path.join(at, "z"))) return;
        moveOnce(at, "a", "b");
        moveOnce(at, "z", "a");
      },
    );
    assert.deepEqual(entriesOf(to), entriesOf(from));
    assert.deepEqual([outcome.torn, outcome.omitted, outcome.isUnsure], [[], [], true]);
  });

  test("DirectoryCloner makes a complete clone if entries are removed after they were listed", (t) => {
    const { from, to, outcome } = cloned(
      t,
      (at) => (write(at, "a", "gone"), fs.mkdirSync(path.join(at, "d"))),
      (name, at) => {
        if (name === "a") fs.rmSync(path.join(at, "gone"), { force: true });
        if (name === "d") fs.rmSync(path.join(at, "d"), { recursive: true, force: true });
      },
    );
    assert.deepEqual(entriesOf(to), entriesOf(from));
    assert.deepEqual([outcome.torn, outcome.omitted], [[], []]);
  });

  test("DirectoryCloner clones a directory under its new name if it is renamed after it was listed", (t) => {
    const { from, to, outcome } = cloned(
      t,
      (at) => (fs.mkdirSync(path.join(at, "d")), write(at, "a", "d/f")),
      (name, at) => name === "d" && moveOnce(at, "d", "e"),
    );
    assert.deepEqual(entriesOf(to), entriesOf(from));
    assert.deepEqual([outcome.torn, outcome.omitted], [[], []]);
  });

  test("DirectoryCloner names a directory as torn if a file in it is renamed at each attempt", (t) => {
    const { to, outcome } = cloned(
      t,
      (at) => (fs.mkdirSync(path.join(at, "d")), write(at, "a", "d/m.1")),
      (name, at) => {
        if (name.startsWith("m.")) moveOnce(path.join(at, "d"), name, name === "m.1" ? "m.2" : "m.1");
      },
    );
    assert.deepEqual(Object.keys(entriesOf(to)), ["a", "d"]);
    assert.deepEqual(
      outcome.torn.map((each) => Buffer.from(each).toString()),
      ["d"],
    );
  });

  for (const [what, name, from, to, isMoved] of [
    ["before it is cloned into a folder that was cloned", "1", "a/message", "b/message", true],
    ["after it was cloned into a folder that is cloned later", "z", "b/message", "a/message", true],
    ["after it was cloned into a folder that was cloned", "2", "b/message", "b/..other", false],
  ] as const)
    test(`whyMoved names ${isMoved ? "an entry" : "no entry"} if a file moves ${what}`, async (t) => {
      const made = ["a/2", "b/1", "b/z", from];
      const began = Date.now() + 1000;
      const clone = cloned(
        t,
        (at) => {
          for (const each of ["a", "b"]) fs.mkdirSync(path.join(at, each));
          write(at, ...made);
        },
        (opened, at) => opened === name && moveOnce(at, from, to),
      );
      const reason = await whyMoved(Buffer.from(clone.from), Buffer.from(clone.to), { result: clone.outcome, began });
      assert.equal(reason === null ? null : reason.includes("was moved to another folder"), isMoved ? true : null);
    });

  test("whyMoved names no entry if files and folders are made while the folder is cloned", async (t) => {
    const began = Date.now();
    const { from, to, outcome } = cloned(
      t,
      (at) => (fs.mkdirSync(path.join(at, "d")), write(at, "a", "d/f")),
      (name, at) => name === "f" && fs.mkdirSync(path.join(at, "new")),
    );
    assert.equal(outcome.mayLackMoved, true);
    assert.equal(await whyMoved(Buffer.from(from), Buffer.from(to), { result: outcome, began }), null);
  });

  test("renamedAway names a directory if an older directory in it was renamed, not if one was removed or new", (t) => {
    const [from, to] = [temporaryFolder(t), temporaryFolder(t)];
    for (const at of [from, to]) fs.mkdirSync(path.join(at, "in/there"), { recursive: true });
    const fds = { from: openDirectory(Buffer.from(from)), target: openDirectory(Buffer.from(to)) };
    t.after(() => [fds.from, fds.target].forEach((fd) => fs.closeSync(fd)));
    const named = (): string[] =>
      renamedAway(syscalls(), [Buffer.from("in/old/below")], {
        ...fds,
        root: Buffer.from(from),
        passedOver: new Set(["in/mount"]),
        began,
      }).map((each) => Buffer.from(each).toString());
    fs.mkdirSync(path.join(from, "in/mount"));
    // File systems tell moments apart that are some milliseconds from each other.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50);
    fs.mkdirSync(path.join(from, "in/new"));
    let began = fs.statSync(path.join(from, "in/new")).birthtimeMs + 1;
    assert.deepEqual(named(), ["in"]);
    began -= 2;
    assert.deepEqual(named(), [], "it was made since");
    fs.mkdirSync(path.join(from, "in/new/deep"));
    assert.deepEqual(named(), [], "what is in it, too");
    fs.renameSync(path.join(from, "in/there"), path.join(from, "in/new/deep/there"));
    began = fs.statSync(path.join(from, "in/new/deep/there")).birthtimeMs + 1;
    assert.deepEqual(named(), ["in"], "what was there before was moved into it");
    fs.rmdirSync(path.join(from, "in/new/deep/there"));
    fs.rmdirSync(path.join(from, "in/new/deep"));
    fs.rmdirSync(path.join(from, "in/new"));
    began += 2;
    assert.deepEqual(named(), []);
  });
});
