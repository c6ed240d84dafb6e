import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeDaemonState, encodeDaemonState } from "./daemon-state.ts";

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

function state(schedules: object): Uint8Array {
  const backend = { type: "plain", selection_method: "auto-detect", selected_at: AT, filesystem_uuid: null };
  const paths = { data_root: null, loop_image: null };
  return encodeDaemonState({ backend, paths, workspaces: [], schedules } as never);
}

test("decodeDaemonState keeps unknown members of scheduled runs, and accepts a state without runs", () => {
  assert.deepEqual(decodeDaemonState(state({ runs: [RUN] })).schedules.runs, [RUN]);
  assert.equal(decodeDaemonState(state({ cleanup_at: null })).schedules.runs, undefined);
});

test("decodeDaemonState names the invalid field of a scheduled run", () => {
  for (const [wrong, field] of [
    [{ ...RUN, since: "soon" }, "since"],
    [{ ...RUN, ran_at: 3 }, "ran_at"],
    [{ ...RUN, error: undefined }, "error"],
    [{ ...RUN, workspace: "../x" }, "workspace"],
    [{ ...RUN, parts_read_at: ["soon"] }, "at"],
    [{ ...RUN, parts_read_at: "x".repeat(10) }, "parts_read_at"],
  ] as const)
    assert.throws(() => decodeDaemonState(state({ runs: [wrong] })), {
      code: "damaged",
      message: new RegExp(`"${field}"`),
    });
});
