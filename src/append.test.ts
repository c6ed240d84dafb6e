import assert from "node:assert/strict";
import { test } from "node:test";
import { append } from "./append.ts";

test("append adds a list that is too long for the arguments of one call", () => {
  const into = [-1];
  append(
    into,
    Array.from({ length: 600_000 }, (_, i) => i),
  );
  assert.deepEqual([into.length, into[0], into.at(-1)], [600_001, -1, 599_999]);
});
