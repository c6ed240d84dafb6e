import assert from "node:assert/strict";
import { test } from "node:test";
import { inKeyOrder, isOtherRow } from "./other-row.ts";

test("isOtherRow tells a row with a reused key from a modified one", () => {
  const before = { id: "2", customer: "Linus", cents: "300" };
  assert.equal(isOtherRow({ before, after: { id: "2", customer: "Grace", cents: "800" } }, ["id"]), true);
  assert.equal(isOtherRow({ before, after: { ...before, cents: "800" } }, ["id"]), false);
  assert.equal(isOtherRow({ before, after: null }, ["id"]), false);
  const one = { id: "2", cents: "300" };
  assert.equal(isOtherRow({ before: one, after: { id: "2", cents: "800" } }, ["id"]), false);
});

test("inKeyOrder sorts added, removed and changed rows by their keys, numbers by value", () => {
  const row = (before: string | null, after: string | null) => {
    const of = (id: string | null) => (id === null ? null : { id, name: "x" });
    return { before: of(before), after: of(after) };
  };
  const rows = [row(null, "10"), row("9", null), row("2", "2"), row(null, "'b'"), row(null, "'a'")];
  assert.deepEqual(
    inKeyOrder(rows, ["id"]).map(({ before, after }) => (after ?? before)!.id),
    ["2", "9", "10", "'a'", "'b'"],
  );
});
