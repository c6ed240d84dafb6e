import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import type { AlarmFacts } from "./alarm.ts";
import { callIfNews, stateOf, type WatchedJob } from "./raised.ts";
import { readSchedule } from "./schedule.ts";

const NOW = "2026-11-20T00:00:00.000Z";
const ERROR = { code: "io", message: "no answer", hint: null };
const ID = "1".repeat(32);

const FOLDER = mkdtempSync(join(tmpdir(), "cairn-raised-"));
after(() => rmSync(FOLDER, { recursive: true }));

function job(state: WatchedJob["state"], of: Partial<WatchedJob> = {}): WatchedJob {
  const error = state === "failed" ? ERROR : null;
  const workspace = { id: ID, path: "/home/me/project" };
  return { what: "backup", workspace, repository: "/r", state, lastSuccessAt: null, error, ...of };
}

function partly(...unread: string[]): WatchedJob {
  return job("well", stateOf({ error: null, unread }));
}

/** An alarm of a user without records. */
function place() {
  process.env["XDG_STATE_HOME"] = mkdtempSync(join(FOLDER, "state-"));
  const told: AlarmFacts[] = [];
  let now = Date.parse(NOW);
  let fails = false;
  const call = async (_alarm: string, facts: AlarmFacts): Promise<void> => {
    if (fails) throw new Error("no receiver");
    told.push(facts);
  };
  return {
    told,
    states: () => told.map(({ what, state }) => `${what} ${state}`),
    fail: (value: boolean) => void (fails = value),
    pass: (ms: number) => void (now += ms),
    judge: async (...jobs: WatchedJob[]) => {
      for (const each of jobs) await callIfNews("alarm", each, { call, now: () => now }).catch(() => undefined);
    },
    raised: () => readSchedule({ workspace: ID, repository: "/r" }).alarms,
  };
}

test("the alarm is called once if a backup fails and once if it succeeds again", async () => {
  const { judge, states, told, raised } = place();
  await judge(job("well"), job("failed"), job("failed"), job("late"));
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
  await judge(job("well"), job("well"));
  assert.deepEqual(states(), ["backup failed", "backup well"]);
  assert.deepEqual(raised(), []);
});

test("two processes that judge the same failure at once call the alarm once", async () => {
  const { judge, states } = place();
  await Promise.all([judge(job("failed")), judge(job("failed")), judge(job("failed"))]);
  assert.deepEqual(states(), ["backup failed"]);
});

test("a known unreadable entry calls the alarm once, and a new one calls it again", async () => {
  const { judge, states, told } = place();
  await judge(partly("a"), partly("a"), partly("a"));
  assert.deepEqual(states(), ["backup partly"]);
  assert.equal(told[0]!.error!.message, "1 entry could not be read: a");
  await judge(partly("a", "b"), partly("b", "a"), partly("a"), partly("a", "b"));
  assert.deepEqual(states(), ["backup partly", "backup partly", "backup partly"], "b was readable in between");
  await judge(job("failed"), job("failed"), partly("a"));
  assert.deepEqual(states().slice(3), ["backup failed", "backup partly"]);
  await judge(job("well"), job("well"));
  assert.deepEqual(states().slice(5), ["backup well"]);
});

test("each job has its own alarm", async () => {
  const { judge, states } = place();
  await judge(job("late", { what: "save", repository: null }), job("failed"), job("failed", { repository: "/other" }));
  assert.deepEqual(states(), ["save late", "backup failed", "backup failed"]);
  await judge(job("well", { what: "save", repository: null }));
  assert.deepEqual(states().slice(3), ["save well"]);
});

test("an alarm whose command fails is called again after ten minutes", async () => {
  const { judge, states, fail, pass } = place();
  fail(true);
  await judge(job("failed"), job("failed", { repository: "/other" }));
  fail(false);
  pass(9 * 60_000);
  await judge(job("failed"));
  assert.deepEqual(states(), []);
  pass(60_000);
  await judge(job("failed"), job("well", { repository: "/other" }));
  assert.deepEqual(states(), ["backup failed"], "nobody is told of the end of what nobody was told of");
  await judge(job("well"));
  assert.deepEqual(states(), ["backup failed", "backup well"]);
});

test("no alarm is recorded if there is none", async () => {
  const { judge, states, raised } = place();
  await judge(job("failed"));
  await callIfNews(null, job("failed"));
  assert.deepEqual(raised(), []);
  await judge(job("failed"));
  assert.deepEqual(states(), ["backup failed", "backup failed"]);
});
