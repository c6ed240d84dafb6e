import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { cairn, cairnOk, type Outcome } from "../fixtures/command.ts";
import { newFolder } from "../fixtures/work.ts";

/** A folder with two restored operations: first all files from `one` to `two`, then back. */
class Folder {
  readonly root: string;

  constructor(name: string) {
    this.root = newFolder(name);
    this.write("one");
    cairnOk(["save"], { cwd: this.root });
    this.write("two");
    cairnOk(["save"], { cwd: this.root });
    cairnOk(["restore", "head~1"], { cwd: this.root });
    cairnOk(["restore", "latest", "a"], { cwd: this.root });
    cairnOk(["undo"], { cwd: this.root });
  }

  write(text: string, names = ["a", "b", "c"]): void {
    for (const name of names) fs.writeFileSync(path.join(this.root, name), text);
  }

  get state(): string[] {
    return ["a", "b", "c"].map((name) => fs.readFileSync(path.join(this.root, name), "utf8"));
  }

  run(status: number, ...words: string[]): Outcome {
    const done = cairn(words, { cwd: this.root });
    assert.equal(done.status, status, `${words.join(" ")}: ${done.stdout}${done.stderr}`);
    return done;
  }
}

test("undo that left an edited file is finished by undo --over, and redo brings all back", () => {
  const folder = new Folder("undo-over");
  assert.deepEqual(folder.state, ["one", "one", "one"]);
  folder.write("edited", ["b"]);
  folder.run(10, "undo");
  assert.deepEqual(folder.state, ["two", "edited", "two"]);
  const { plan } = folder.run(0, "undo", "--over", "--plan").data as { plan: { entries: { path: string }[] } };
  assert.deepEqual(
    plan.entries.map((entry) => entry.path),
    ["b"],
  );
  folder.write("edited again", ["b"]);
  folder.run(0, "undo", "--over");
  assert.deepEqual(folder.state, ["two", "two", "two"]);
  assert.equal(folder.run(3, "undo", "--over").error?.code, "nothing_to_undo");
  folder.run(0, "redo");
  assert.deepEqual(folder.state, ["one", "edited", "one"]);
});

test("redo that left an edited file is finished by redo --over, and undo reverts the whole operation", () => {
  const folder = new Folder("redo-over");
  folder.run(0, "undo");
  assert.deepEqual(folder.state, ["two", "two", "two"]);
  folder.write("edited", ["c"]);
  folder.run(10, "redo");
  assert.deepEqual(folder.state, ["one", "one", "edited"]);
  folder.run(0, "redo", "--over");
  assert.deepEqual(folder.state, ["one", "one", "one"]);
  folder.run(0, "undo");
  assert.deepEqual(folder.state, ["two", "two", "edited"]);
});

test("undo names no directory of which the operation changed only the time", () => {
  const root = newFolder("undo-times");
  const write = (text: string): void => fs.writeFileSync(path.join(root, "d/a"), text);
  fs.mkdirSync(path.join(root, "d"));
  write("one");
  fs.utimesSync(path.join(root, "d"), 1, 1);
  cairnOk(["save"], { cwd: root });
  fs.utimesSync(path.join(root, "d"), 2, 2);
  fs.writeFileSync(path.join(root, "b"), "two");
  cairnOk(["restore", "head"], { cwd: root });
  fs.rmSync(path.join(root, "d"), { recursive: true });
  const done = cairn(["undo"], { cwd: root });
  assert.deepEqual([done.status, done.data["left_out"]], [0, []]);
  assert.deepEqual(fs.readdirSync(root), ["b"]);
});

test("undo --over after an undo that left nothing reverts the operation before it", () => {
  const folder = new Folder("undo-over-before");
  folder.run(0, "redo");
  assert.deepEqual(folder.state, ["two", "one", "one"]);
  folder.run(0, "undo");
  folder.write("edited", ["b"]);
  folder.run(0, "undo", "--over");
  assert.deepEqual(folder.state, ["two", "two", "two"]);
});

test("undo without --over after an undo that left a file reverts the operation before it", () => {
  const folder = new Folder("undo-twice");
  folder.run(0, "redo");
  folder.write("edited", ["a"]);
  const nothing = folder.run(10, "undo");
  assert.equal(nothing.data["undo_id"], null, "an undo that changes nothing is no operation");
  folder.run(0, "undo", "--over");
  assert.deepEqual(folder.state, ["one", "one", "one"]);
  folder.write("edited", ["a"]);
  folder.run(10, "undo");
  assert.deepEqual(folder.state, ["edited", "two", "two"]);
  // The rest was reverted by hand: nothing is left to finish, and no other operation is touched.
  folder.write("two", ["a"]);
  folder.run(0, "undo", "--over");
  assert.deepEqual(folder.state, ["two", "two", "two"]);
  folder.run(0, "redo");
  assert.deepEqual(folder.state, ["edited", "one", "one"]);
});

test("an undo that is killed before it records that it left a file is complete, and can be redone", () => {
  const folder = new Folder("undo-over-killed");
  folder.write("edited", ["b"]);
  const env = { CAIRN_FAILPOINT: "undo.part-recorded" };
  assert.ok(cairn(["undo"], { cwd: folder.root, env, own: true }).killed);
  assert.deepEqual(folder.state, ["two", "edited", "two"]);
  assert.equal(folder.run(3, "undo", "--over").error?.code, "nothing_to_undo");
  folder.run(0, "redo");
  assert.deepEqual(folder.state, ["one", "edited", "one"]);
});

test("redo leaves entries that the undo left, whatever became of them since", () => {
  const folder = new Folder("redo-what-was-undone");
  folder.run(0, "restore", "latest");
  folder.write("edited", ["a", "b"]);
  folder.run(10, "undo");
  assert.deepEqual(folder.state, ["edited", "edited", "one"]);
  // Back by hand to what the undo would have made of it.
  folder.write("one", ["a", "b"]);
  folder.run(0, "redo");
  assert.deepEqual(folder.state, ["one", "one", "two"]);
  folder.run(0, "undo");
  assert.deepEqual(folder.state, ["one", "one", "one"]);
});
