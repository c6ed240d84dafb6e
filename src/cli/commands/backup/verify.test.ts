import assert from "node:assert/strict";
import { test } from "node:test";
import { parsePart } from "../../input.ts";

test("parsePart turns a percentage into a random part of about that size, and refuses invalid ones", () => {
  const parts = new Set(Array.from({ length: 200 }, () => parsePart("50%", "--subset").part));
  assert.deepEqual([...parts].toSorted(), [1, 2]);
  assert.deepEqual(
    ["100%", "10%", "2.5%", "0.1%"].map((text) => parsePart(text, "--subset").of),
    [1, 10, 40, 1000],
  );
  assert.deepEqual(parsePart("3/30", "--subset"), { part: 3, of: 30 });
  for (const text of ["0%", "0.0%", "101%", "-1%", "%", "10 %", "1/0", "3/2", "1/2%"])
    assert.throws(() => parsePart(text, "--subset"), { code: "usage" }, text);
});
