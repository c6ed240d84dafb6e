import assert from "node:assert/strict";
import { test } from "node:test";
import { isOtherRow } from "./other-row.ts";

test("isOtherRow tells a row with a reused key from a modified one", () => {
  const before = { id: "2", customer: "Linus", cents: "300" };
  assert.equal(isOtherRow({ before, after: { id: "2", customer: "Grace", cents: "800" } }, ["id"]), true);
  assert.equal(isOtherRow({ before, after: { ...before, cents: "800" } }, ["id"]), false);
  assert.equal(isOtherRow({ before, after: null }, ["id"]), false);
  const one = { id: "2", cents: "300" };
  assert.equal(isOtherRow({ before: one, after: { id: "2", cents: "800" } }, ["id"]), false);
});
