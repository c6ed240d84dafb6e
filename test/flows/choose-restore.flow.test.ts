import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { cairn, cairnOk } from "../fixtures/command.ts";
import { KEYS, Terminal } from "../fixtures/terminal.ts";
import { newFolder } from "../fixtures/work.ts";

/** `cairn restore` without words, on a real terminal. */

const FILES = ["letter", "notes", "plan"];

/** A folder with the points `first` and `second`, and then other content in each file. */
function place(): string {
  const folder = newFolder("chosen");
  for (const content of ["first", "second", "third"]) {
    for (const name of FILES) fs.writeFileSync(path.join(folder, name), `${content} ${name}`);
    if (content !== "third") cairnOk(["save", "-m", `the ${content} draft`], { cwd: folder });
  }
  return folder;
}

function contents(folder: string): string[] {
  return FILES.map((name) => fs.readFileSync(path.join(folder, name), "utf8").split(" ")[0]!);
}

test("restore on a terminal lets a person find a point by message, choose files and confirm the plan", async (t) => {
  const folder = place();
  const terminal = new Terminal(t, ["restore"], folder);
  await terminal.type("Restore which save point?", "FIRST dr");
  await terminal.type("(1 match)", KEYS.enter);
  await terminal.type("3 entries would change. Restore what?", `${KEYS.down}${KEYS.enter}`);
  await terminal.type("Restore which files?", "notes");
  await terminal.type("(1 match)", KEYS.tab);
  await terminal.type("◼", KEYS.enter);
  await terminal.type("would change 1 entry: 1 to update", "");
  await terminal.type("Restore this?", KEYS.enter);
  assert.equal(await terminal.ended(), 0);
  assert.match(terminal.text, /restored [0-9a-f]+[^]*take it back: cairn undo/);
  assert.deepEqual(contents(folder), ["third", "first", "third"]);
});

test("restore on a terminal finds a point by the time and the cause in its list", async (t) => {
  const folder = place();
  cairnOk(["run", "--", "true"], { cwd: folder });
  fs.writeFileSync(path.join(folder, "letter"), "fourth");
  const terminal = new Terminal(t, ["restore"], folder);
  const year = String(new Date().getFullYear());
  await terminal.type("Restore which save point?", `${year}`);
  await terminal.type(year, "\u007f".repeat(4));
  await terminal.type("the second draft", "command true");
  await terminal.type("match", KEYS.enter);
  await terminal.type("Restore this?", KEYS.enter);
  assert.equal(await terminal.ended(), 0);
  assert.deepEqual(contents(folder), ["third", "third", "third"]);
});

test("Ctrl-C at any question of restore changes nothing and exits 130", async (t) => {
  const folder = place();
  const points = (): number => (cairnOk(["history", "--all"], { cwd: folder }).data["save_points"] as unknown[]).length;
  const before = points();
  const answers: [question: string, keys: string][] = [
    ["Restore which save point?", KEYS.enter],
    ["Restore what?", `${KEYS.down}${KEYS.enter}`],
    ["Restore which files?", `${KEYS.tab}${KEYS.enter}`],
    ["Restore this?", KEYS.enter],
  ];
  for (let stop = 0; stop < answers.length; stop++) {
    const terminal = new Terminal(t, ["restore"], folder);
    for (const [question, keys] of answers.slice(0, stop)) await terminal.type(question, keys);
    await terminal.type(answers[stop]![0], KEYS.interrupt);
    assert.equal(await terminal.ended(), 130, answers[stop]![0]);
    assert.match(terminal.text, /cairn: stopped\s+nothing was changed/);
  }
  assert.deepEqual(contents(folder), ["third", "third", "third"]);
  assert.equal(points(), before);
});

test("Ctrl-D at a question of restore, on a terminal that knows no size, changes nothing and exits 130", async (t) => {
  const folder = place();
  const terminal = new Terminal(t, ["restore"], folder, 0);
  await terminal.type("Restore which save point?", KEYS.enter);
  await terminal.type("Restore what?", KEYS.down + KEYS.enter);
  await terminal.type("Restore which files?", KEYS.tab + KEYS.enter);
  await terminal.type("Restore this?", KEYS.end);
  assert.equal(await terminal.ended(), 130);
  assert.match(terminal.text, /cairn: stopped\s+nothing was changed/);
  assert.doesNotMatch(terminal.text, /--apply/, "a person who is asked needs no id");
  assert.deepEqual(contents(folder), ["third", "third", "third"]);
});

test("restore on a terminal changes nothing if the plan is declined or the folder equals the point", async (t) => {
  const folder = place();
  const declined = new Terminal(t, ["restore"], folder);
  await declined.type("Restore which save point?", KEYS.enter);
  await declined.type("Restore what?", KEYS.enter);
  await declined.type("Restore this?", `${KEYS.right}${KEYS.enter}`);
  assert.equal(await declined.ended(), 0);
  assert.match(declined.text, /nothing was changed/);
  assert.deepEqual(contents(folder), ["third", "third", "third"]);
  const planned = new Terminal(t, ["restore", "--plan"], folder);
  await planned.type("Restore which save point?", KEYS.enter);
  assert.equal(await planned.ended(), 0);
  assert.match(planned.text, /would change 3 entries/);
  cairnOk(["save", "-m", "now"], { cwd: folder });
  const equal = new Terminal(t, ["restore"], folder);
  await equal.type("Restore which save point?", KEYS.enter);
  assert.equal(await equal.ended(), 0);
  assert.match(equal.text, /a restore to [0-9a-f]+ would change nothing/);
});

test("restore requires a point argument if there is no terminal or --to is given", async (t) => {
  const folder = place();
  const piped = cairn(["restore"], { cwd: folder });
  assert.deepEqual([piped.status, piped.error?.message], [2, "missing required argument 'target'"]);
  const elsewhere = new Terminal(t, ["restore", "--to", `${folder}-copy`], folder);
  assert.equal(await elsewhere.ended(), 2);
  assert.match(elsewhere.text, /missing required argument 'target'/);
});
