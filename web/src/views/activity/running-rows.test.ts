import assert from "node:assert/strict";
import { test } from "node:test";
import type { RunningCall } from "../../../../src/contract/service.ts";
import { RunningRows } from "./running-rows.ts";

const of = (id: string, state: RunningCall["state"] = "running"): RunningCall => ({
  running_id: id,
  verb: "save",
  workspace: "/w",
  repository: null,
  state,
  since: "2026-01-01T00:00:00.000Z",
  progress: null,
  scheduled: false,
  uid: 0,
  pid: null,
  token: null,
  error: null,
});
const ids = (calls: readonly RunningCall[]): string[] => calls.map(({ running_id: id, state }) => `${id} ${state}`);

test("a list replaces what events told before it, so that a missed end leaves no row", async () => {
  const rows = new RunningRows();
  assert.deepEqual(ids(rows.take(of("missed"))), ["missed running"]);
  assert.deepEqual(ids(await rows.replace(async () => [of("other")])), ["other running"]);
  assert.deepEqual(ids(rows.take(of("other", "done"))), []);
  assert.deepEqual(ids(rows.take(of("late", "failed"))), []);
});

test("events that come while a list is asked for count more than the list, and a failed list changes nothing", async () => {
  const rows = new RunningRows();
  const listed = await rows.replace(async () => {
    rows.take(of("ended", "cancelled"));
    rows.take(of("begun"));
    return [of("ended"), of("known", "waiting")];
  });
  assert.deepEqual(ids(listed), ["known waiting", "begun running"]);
  await assert.rejects(rows.replace(() => Promise.reject(new Error("no daemon"))));
  assert.deepEqual(ids(rows.take(of("known", "stopping"))), ["known stopping", "begun running"]);
});
