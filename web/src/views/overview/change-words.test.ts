import assert from "node:assert/strict";
import { test } from "node:test";
import { changeWords, doneWords } from "./change-words.ts";

test("the plan says for each file whether it is deleted or edited, and which entries go or come", () => {
  const file = { path: "/f", changed: true, how: "edited" as const, entries: ["hooks.Stop", "hooks.PreToolUse"] };
  assert.equal(changeWords("remove", file), "is edited: 2 hooks go");
  const server = { ...file, entries: ["mcpServers.cairn"] };
  assert.equal(changeWords("remove", server), "is edited: the MCP server cairn goes");
  assert.equal(changeWords("install", { ...server, how: "created" }), "is made: the MCP server cairn comes");
  assert.equal(changeWords("remove", { ...file, how: "deleted" }), "is deleted: only Cairn's entries are in it");
  assert.equal(changeWords("remove", { ...file, changed: false, how: "unchanged" }), "stays as it is");
  assert.equal(changeWords("remove", { path: "/f", changed: true }), "is edited");
});

test("the outcome is worded by what was done, and a removal claims nothing about hooks that still save the folder", () => {
  const files = [{ path: "/f", changed: true }];
  assert.equal(doneWords("install", { files, problem: null }), "Hooks installed: 1 file changed.");
  assert.equal(doneWords("remove", { files, problem: null }), "Hooks removed: 1 file changed. The save points stay.");
  assert.match(doneWords("remove", { files: [], problem: null }), /do not save this folder any more/);
  const covered = doneWords("remove", { files: [], problem: "the folder is still covered" });
  assert.equal(covered, "This folder's own entry is removed. No file changed.");
});
