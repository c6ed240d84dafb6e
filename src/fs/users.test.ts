import assert from "node:assert/strict";
import { test } from "node:test";
import { groupId, groupName, homeDirectories, parseNames, userId, userName } from "./users.ts";

test("names and numbers lead to each other when they are known", () => {
  assert.equal(userName(0), "root");
  assert.equal(userId("root"), 0);
  assert.equal(groupId(groupName(0)), 0);
  assert.ok(homeDirectories().includes("/root"));
});

test("an unknown number has no name and an unknown name no number", () => {
  assert.equal(userName(4_000_000_000), "");
  assert.equal(userId("cairn-nobody-has-this"), null);
});

test("odd lines are skipped and the first of two counts", () => {
  const { names, ids } = parseNames("# x:y:1:\na:x:5:\nb:x:5:\na:x:6:\nbad\n+::::::\nc:x:-1:\n");
  assert.equal(names.get(5), "a");
  assert.equal(ids.get("a"), 5);
  assert.equal(ids.get("b"), 5);
  assert.equal(names.has(1), false);
  assert.equal(ids.has("c"), false);
});
