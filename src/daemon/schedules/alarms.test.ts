import assert from "node:assert/strict";
import { test } from "node:test";
import type { DaemonState, ServedWorkspace } from "../../formats/records/daemon-state.ts";
import type { AlarmFacts } from "../../operations/kept/alarm.ts";
import type { KeptState } from "../state/kept-state.ts";
import { Alarms, type WatchedJob } from "./alarms.ts";

const NOW = "2026-11-20T00:00:00.000Z";
const ERROR = { code: "io", message: "no answer", hint: null };

function job(state: WatchedJob["state"], of: Partial<WatchedJob> = {}): WatchedJob {
  const workspace = { id: "1".repeat(32), path: "/home/me/project" } as ServedWorkspace;
  const error = state === "failed" ? ERROR : null;
  return { what: "backup", workspace, repository: "/r", state, lastSuccessAt: null, error, ...of };
}

/** Alarms over a state in memory. `judge` waits until the alarm was called. */
function place(state: DaemonState["schedules"] = {}) {
  const told: AlarmFacts[] = [];
  const said: string[] = [];
  let fails = false;
  let isFull = false;
  let now = Date.parse(NOW);
  const kept = {
    state: { schedules: state },
    change({ schedules }: Partial<DaemonState>) {
      if (isFull) throw new Error("no space");
      kept.state = { schedules: JSON.parse(JSON.stringify(schedules)) as DaemonState["schedules"] };
    },
  };
  const begin = (): Alarms =>
    new Alarms({
      kept: kept as KeptState,
      log: (line) => void said.push(line),
      call: async (_alarm, facts) => {
        if (fails) throw new Error("no receiver");
        told.push(facts);
      },
      now: () => now,
    });
  let alarms = begin();
  return {
    said,
    kept,
    states: () => told.map(({ what, state: now }) => `${what} ${now}`),
    told,
    fail: (now: boolean) => void (fails = now),
    pass: (ms: number) => void (now += ms),
    fillDisk: () => void (isFull = true),
    restart: () => void (alarms = begin()),
    async judge(...jobs: WatchedJob[]): Promise<void> {
      alarms.judge(jobs, "alarm");
      await new Promise((done) => setImmediate(done));
    },
    stopUsing: () => alarms.judge([job("failed")], null),
    alarms: () => alarms,
  };
}

test("the alarm is called once if a backup fails and once if it succeeds again, even over restarts", async () => {
  const { judge, states, told, restart, kept } = place();
  await judge(job("well"));
  await judge(job("failed"));
  await judge(job("failed"));
  restart();
  await judge(job("failed"));
  await judge(job("late"));
  assert.deepEqual(states(), ["backup failed"]);
  assert.deepEqual(told[0], {
    what: "backup",
    state: "failed",
    workspace: { name: "project", path: "/home/me/project" },
    repository: "/r",
    since: NOW,
    last_success_at: null,
    error: ERROR,
  });
  restart();
  await judge(job("well"));
  await judge(job("well"));
  assert.deepEqual(states(), ["backup failed", "backup well"]);
  assert.deepEqual(kept.state.schedules.alarms, []);
});

test("each job has its own alarm, and a removed job has none", async () => {
  const { judge, states } = place();
  await judge(job("late", { what: "save", repository: null }), job("failed"), job("failed", { repository: "/other" }));
  assert.deepEqual(states(), ["save late", "backup failed", "backup failed"]);
  await judge(job("well", { what: "save", repository: null }));
  await judge(job("well"));
  assert.deepEqual(states().slice(3), ["save well"]);
});

test("an alarm whose command fails is logged, and called again after ten minutes", async () => {
  const { judge, states, said, fail, pass } = place();
  fail(true);
  await judge(job("failed"), job("failed", { repository: "/other" }));
  assert.equal(said.length, 1, "further calls wait, too");
  assert.match(said[0]!, /no receiver; .* in 10 minutes .* backup of \/home\/me\/project into \/r failed: no answer/);
  fail(false);
  pass(9 * 60_000);
  await judge(job("failed"), job("failed", { repository: "/other" }));
  assert.deepEqual(states(), []);
  pass(60_000);
  await judge(job("failed"), job("well", { repository: "/other" }));
  assert.deepEqual(states(), ["backup failed"], "nobody is told of the end of what nobody was told of");
  await judge(job("well"));
  assert.deepEqual(states(), ["backup failed", "backup well"]);
});

test("the next start calls an alarm again that the daemon's stop interrupted", async () => {
  const here = place();
  here.fail(true);
  here.alarms().judge([job("failed")], "alarm");
  await here.alarms().stop();
  assert.deepEqual(
    here.kept.state.schedules.alarms?.map(({ told }) => told),
    [false],
  );
  here.fail(false);
  here.restart();
  await here.judge(job("failed"));
  assert.deepEqual(here.states(), ["backup failed"]);
});

test("the alarm is called once even if the state cannot be written", async () => {
  const { judge, states, fillDisk } = place();
  fillDisk();
  await judge(job("failed"));
  await judge(job("failed"));
  assert.deepEqual(states(), ["backup failed"]);
});

test("no alarm is recorded if the configuration has none", async () => {
  const { judge, states, stopUsing, kept } = place();
  await judge(job("failed"));
  stopUsing();
  assert.deepEqual(kept.state.schedules.alarms, []);
  await judge(job("failed"));
  assert.deepEqual(states(), ["backup failed", "backup failed"]);
});
