import assert from "node:assert/strict";
import { test } from "node:test";
import { summaryLines } from "./run-tests.ts";

test("the summary names every failure and every reason for a skip, and ends with the counts", () => {
  const skipped = new Map([
    ["needs root", 2],
    ["restic is not installed", 5],
  ]);
  assert.deepEqual(summaryLines({ passed: 10, failed: 1, skipped, failures: ["test/a.test.ts: b"] }), [
    "failed: test/a.test.ts: b",
    "skipped 5: restic is not installed",
    "skipped 2: needs root",
    "10 passed, 1 failed, 7 skipped",
  ]);
});
