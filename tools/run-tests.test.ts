import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import { chosenFiles, summaryLines } from "./run-tests.ts";

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

test("files that a pattern after an exclamation mark matches are left out", () => {
  const here = path.relative(path.resolve(import.meta.dirname, ".."), import.meta.filename);
  const names = (patterns: string[]): string[] => chosenFiles(patterns).map((file) => path.basename(file));
  assert.ok(names(["tools/*.test.ts"]).includes(path.basename(here)));
  assert.equal(names(["tools/*.test.ts", "!**/run-tests.test.ts"]).includes(path.basename(here)), false);
  assert.deepEqual(names([here, `!${here}`]), []);
});
