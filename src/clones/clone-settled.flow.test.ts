import assert from "node:assert/strict";
import { test } from "node:test";
import { degradationsOf } from "./clone-settled.ts";

test("degradationsOf returns the number of copied files for each reason", () => {
  const told = degradationsOf({ copied: 1201, fragmented: 1, refusal: "EOPNOTSUPP" });
  assert.deepEqual(told, [
    { what: "1,200 files copied", reason: "the file system does not clone them: EOPNOTSUPP" },
    { what: "1 file copied", reason: "they are in too many pieces to be cloned quickly" },
  ]);
  assert.deepEqual(degradationsOf({ copied: 0, fragmented: 0, refusal: null }), []);
});
