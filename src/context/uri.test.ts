import assert from "node:assert/strict";
import { test } from "node:test";
import { contextTypeOf, isControlName, isSession, parseUri, requireCompatible, toUri } from "./uri.ts";

test("a place is read with or without a slash at its end, and is nothing but a place", () => {
  assert.equal(parseUri("viking://resources/docs/"), "resources/docs");
  assert.equal(parseUri("viking://"), "");
  assert.equal(toUri(""), "viking://");
  for (const wrong of [
    "resources/docs",
    "viking://other/x",
    "viking://resources/../user",
    "viking://resources//x",
    " viking://resources/x",
    "http://x",
  ])
    assert.throws(() => parseUri(wrong), { code: "usage" });
});

test("sessions are told by scope or by their place below a user", () => {
  assert.deepEqual(
    ["session/s1/a", "user/alice/sessions/s1", "user/alice/memories/sessions", "resources/sessions"].map(isSession),
    [true, true, false, false],
  );
});

test("the type of a context follows from its place", () => {
  assert.deepEqual(
    [
      "resources/memories/x",
      "user/alice/memories/x",
      "user/alice/skills/x",
      "agent/default/memories/x",
      "agent/skills/x",
    ].map(contextTypeOf),
    ["resource", "memory", "skill", "memory", "skill"],
  );
});

test("a place of a structured scope keeps depth and kind, one of resources neither", () => {
  requireCompatible("resources/a", "resources/b/c/a");
  requireCompatible("user/alice/memories/x", "user/bob/memories/x");
  for (const [from, to] of [
    ["resources/a", "user/alice/resources/a"],
    ["user/alice/memories/x", "user/bob/memories/deep/x"],
    ["user/alice/sessions/s1", "user/alice/memories/s1"],
    ["session/s1", "session/s0/s1"],
    ["agent/default/skills/x", "agent/default/memories/x"],
  ] as const)
    assert.throws(() => requireCompatible(from, to), {
      code: "usage",
      details: { source: toUri(from), target: toUri(to) },
    });
});

test("control files are known by their names, a watch list only at its place", () => {
  assert.deepEqual(
    [
      "resources/a/.relations.json",
      "user/a/.path.ovlock",
      "resources/.watch_tasks.json",
      "user/a/.watch_tasks.json",
      "resources/tasks",
    ].map(isControlName),
    [true, true, true, false, false],
  );
});
