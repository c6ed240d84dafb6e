import assert from "node:assert/strict";
import { test } from "node:test";
import { pageHint } from "./hint.ts";

test("the page leaves out clauses of a hint with options, and with commands that it has its own way for", () => {
  assert.equal(
    pageHint("`cairn diff d1b0cacc` lists them; --merge brings the fork's changes home, and --over takes them away"),
    null,
  );
  assert.equal(pageHint("see `cairn operations`"), null);
  assert.equal(pageHint("give the file another name; --over replaces it"), "give the file another name");
  assert.equal(pageHint("start `cairn ui` without --read-only"), "start `cairn ui` without --read-only");
  assert.equal(pageHint("`cairn doctor` finds the cause"), "`cairn doctor` finds the cause");
});
