import assert from "node:assert/strict";
import { test } from "node:test";
import { contextTypeOf, isControlName, isSession, parseUri, requireCompatible, toUri } from "./uri.ts";

test("parseUri accepts a URI with or without a final slash, and refuses other URIs", () => {
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

test("isSession recognises a session by its scope or by its path below a user", () => {
  assert.deepEqual(
    ["session/s1/a", "user/alice/sessions/s1", "user/alice/memories/sessions", "resources/sessions"].map(isSession),
    [true, true, false, false],
  );
});

test("contextTypeOf derives the type of an entry from its path", () => {
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

test("requireCompatible keeps the depth and kind of a path, except below resources", () => {
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

test("isControlName recognises control files by name, and a watch list only at its own path", () => {
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
