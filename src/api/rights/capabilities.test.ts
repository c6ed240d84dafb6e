import assert from "node:assert/strict";
import { test } from "node:test";
import { isChanging, looks, onlyLooks } from "./capabilities.ts";

test("doctor only looks, and is a change with an option that repairs", () => {
  assert.deepEqual([looks("doctor", {}), onlyLooks("doctor", {}), isChanging("doctor", {})], [true, true, false]);
  for (const options of [{ repair: true }, { breakLocks: true }])
    assert.deepEqual([looks("doctor", options), onlyLooks("doctor", options)], [false, false]);
  assert.equal(looks("doctor", { repair: false }), true);
});
