import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeSchedule, encodeSchedule } from "./schedule.ts";

const AT = "2026-11-20T09:15:19.123Z";
const RUN = {
  kind: "verify",
  repository: "/r",
  workspace: null,
  since: AT,
  ran_at: AT,
  good_at: null,
  error: "no",
  parts_read_at: [AT],
  later: { kept: 1 },
};

function record(runs: readonly object[]): Uint8Array {
  return Buffer.from(
    JSON.stringify({ format: "cairn.schedule", version: 1, workspace: null, repository: "/r", runs, alarms: [] }),
  );
}

test("decodeSchedule keeps unknown members of scheduled runs", () => {
  assert.deepEqual(decodeSchedule(record([RUN])).runs, [RUN]);
  assert.deepEqual(decodeSchedule(encodeSchedule(decodeSchedule(record([RUN])))).runs, [RUN]);
});

test("decodeSchedule names the invalid field of a scheduled run", () => {
  for (const [wrong, field] of [
    [{ ...RUN, since: "soon" }, "since"],
    [{ ...RUN, ran_at: 3 }, "ran_at"],
    [{ ...RUN, error: undefined }, "error"],
    [{ ...RUN, workspace: "../x" }, "workspace"],
    [{ ...RUN, failures: -1 }, "failures"],
    [{ ...RUN, parts_read_at: ["soon"] }, "at"],
    [{ ...RUN, parts_read_at: "x".repeat(10) }, "parts_read_at"],
  ] as const)
    assert.throws(() => decodeSchedule(record([wrong])), { code: "damaged", message: new RegExp(`"${field}"`) });
});
