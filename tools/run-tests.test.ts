import assert from "node:assert/strict";
import { test } from "node:test";
import { summaryLines } from "./run-tests.ts";

test("the summary names slow files, every failure and every reason for a skip, and ends with the counts", () => {
  const skipped = new Map([
    ["needs root", 2],
    ["restic is not installed", 5],
  ]);
  const durations = new Map([
    ["test/a.test.ts", 12_340],
    ["test/b.test.ts", 100],
  ]);
  assert.deepEqual(summaryLines({ passed: 10, failed: 1, skipped, failures: ["test/a.test.ts: b"], durations }), [
    "slow: test/a.test.ts (12.3 s)",
    "failed: test/a.test.ts: b",
    "skipped 5: restic is not installed",
    "skipped 2: needs root",
    "10 passed, 1 failed, 7 skipped",
  ]);
});
