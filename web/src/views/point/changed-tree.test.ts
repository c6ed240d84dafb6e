import assert from "node:assert/strict";
import { test } from "node:test";
import type { DiffEntry } from "../../../../src/client-browser.ts";
import { ChangedTree, entriesText, firstOf } from "./changed-tree.ts";

const entry = (path: string, change: DiffEntry["change"], kind: DiffEntry["kind"] = "file"): DiffEntry => ({
  path,
  change,
  kind,
  aspects: [],
});

function shown(entries: DiffEntry[], closed: string[] = []): string[] {
  return new ChangedTree(entries)
    .rows(new Set(closed))
    .map((row) =>
      row.kind === "folder"
        ? `${"  ".repeat(row.depth)}${row.name}/ +${row.added} ~${row.modified} -${row.removed}${row.own === undefined ? "" : ` ${row.own.change}`}`
        : `${"  ".repeat(row.depth)}${row.name} ${row.entry.change}`,
    );
}

test("ChangedTree counts changes per folder, and joins folders without branches into one row", () => {
  const entries = [
    entry("a.ts", "modified"),
    entry("src", "modified", "directory"),
    entry("src/deep/er/x.ts", "added"),
    entry("src/deep/er/y.ts", "removed"),
    entry("src/z.ts", "renamed"),
  ];
  assert.deepEqual(shown(entries), [
    "src/ +2 ~0 -2 modified",
    "  deep/er/ +1 ~0 -1",
    "    x.ts added",
    "    y.ts removed",
    "  z.ts renamed",
    "a.ts modified",
  ]);
  assert.deepEqual(shown(entries, ["src"]), ["src/ +2 ~0 -2 modified", "a.ts modified"]);
});

test("ChangedTree shows an added empty folder as a row", () => {
  assert.deepEqual(shown([entry("new", "added", "directory")]), ["new added"]);
});

test("entriesText counts folders of which only the times changed apart", () => {
  const folder = { ...entry("docs", "modified", "directory"), aspects: ["times" as const] };
  assert.equal(
    entriesText([entry("a", "added"), entry("b", "removed"), folder]),
    "2 entries and the times of 1 folder",
  );
  assert.equal(entriesText([{ ...folder, aspects: ["mode"] }]), "the mode, owner or times of 1 folder");
  assert.equal(entriesText([entry("a", "added")]), "1 entry");
});

test("firstOf returns the first file with changed text in the order of the tree, else the first file", () => {
  const changed = { ...entry("src/b.ts", "modified"), aspects: ["content" as const] };
  const touched = { ...entry("src/a.ts", "modified"), aspects: ["times" as const] };
  const picture = entry("img/logo.png", "added");
  assert.equal(firstOf([entry("a.md", "added"), picture, touched, changed]), changed);
  assert.equal(firstOf([picture, entry("img", "added", "directory")]), picture);
  assert.equal(firstOf([]), undefined);
});
