import assert from "node:assert/strict";
import { test } from "node:test";
import { EntrySet } from "./entry-set.ts";

test("EntrySet contains exactly the added entries, also beyond its initial size", () => {
  const set = new EntrySet(9);
  assert.deepEqual(
    [0, 7, 8, 8, 1000, 1000].map((entry) => set.add(entry)),
    [true, true, true, false, true, false],
  );
  const all = Array.from({ length: 5000 }, (_, entry) => entry);
  assert.deepEqual(
    all.filter((entry) => set.has(entry)),
    [0, 7, 8, 1000],
  );
});
