import assert from "node:assert/strict";
import { test } from "node:test";
import type { PlanEntry } from "cairnstate/client";
import { toText } from "../app/address.ts";
import { changedText, chooseIn, chosenPaths, marksOf, rowsOf } from "./restore-choice.ts";

const entry = (action: PlanEntry["action"], path: string): PlanEntry =>
  path.endsWith("/") ? { action, path: path.slice(0, -1), kind: "directory" } : { action, path, kind: "file" };
const PLAN = [
  entry("metadata", "docs/"),
  entry("delete", "docs/press.md"),
  entry("update", "docs/readme.md"),
  entry("delete", "new.txt"),
  entry("create", "src/"),
  entry("create", "src/a.ts"),
  entry("create", "src/b.ts"),
];
const paths = (without: readonly string[], isBackup: boolean): string[] =>
  chosenPaths(PLAN, new Set(without), { asked: [], isBackup }).map(toText).toSorted();

test("a folder with some chosen files is marked in part, and its other files stay unchosen", () => {
  const none = chooseIn(PLAN, new Set(), { entry: PLAN[4]!, isWanted: false });
  assert.deepEqual([...none], ["src", "src/a.ts", "src/b.ts"]);
  const one = chooseIn(PLAN, none, { entry: PLAN[5]!, isWanted: true });
  assert.deepEqual([...one], ["src", "src/b.ts"]);
  const marks = marksOf(PLAN, (each) => !one.has(toText(each)));
  assert.deepEqual(
    ["docs", "src", "src/a.ts", "src/b.ts"].map((key) => marks.get(key)),
    ["all", "some", "all", "none"],
  );
});

test("a backup is never asked for a path that only the present folder has", () => {
  assert.deepEqual(paths(["src/b.ts"], false), ["docs", "new.txt", "src/a.ts"]);
  assert.deepEqual(paths(["src/b.ts"], true), ["docs", "src/a.ts"]);
  // The folder of the removed file holds a file that stays.
  assert.deepEqual(paths(["docs/readme.md"], true), ["src"]);
});

test("rows keep their order when files are chosen, and the button counts what is changed", () => {
  const chosen = [entry("create", "lib/"), PLAN[2]!];
  assert.deepEqual(rowsOf(PLAN, chosen).map(toText), [...PLAN.map(toText), "lib"]);
  assert.equal(changedText([PLAN[2]!]), " 1 file");
  assert.equal(changedText([PLAN[1]!, PLAN[2]!, entry("keep", "docs/x")]), " 2 files");
  assert.equal(changedText(PLAN), " 7 entries");
  assert.equal(changedText([]), "");
});
