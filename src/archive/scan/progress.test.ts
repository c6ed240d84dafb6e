import assert from "node:assert/strict";
import { test } from "node:test";
import { asVerifying, type ScanProgress } from "./scan.ts";

test("asVerifying changes the phase of scanning to verifying and keeps the phase of trees", () => {
  const told: ScanProgress[] = [
    { phase: "scanning", done: 2000, bytes: 5, current: "/w" },
    { phase: "trees", done: 0 },
  ];
  assert.deepEqual(told.map(asVerifying), [
    { phase: "verifying", done: 2000, bytes: 5 },
    { phase: "trees", done: 0 },
  ]);
});
