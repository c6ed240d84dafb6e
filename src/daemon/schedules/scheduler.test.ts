import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { CairnError } from "../../errors.ts";
import type { ScheduledRun } from "../../formats/records/schedule.ts";
import { alone, runOf, type Task, type TaskCall } from "../../keep/schedule.ts";
import { Scheduler } from "./scheduler.ts";
import { TestClock } from "./testing-clock.ts";

const HOUR = 3_600_000;

const FOLDER = mkdtempSync(join(tmpdir(), "cairn-scheduler-"));
after(() => rmSync(FOLDER, { recursive: true }));

/** A scheduler of one daemon after the other, over the same records. */
function place(clock = new TestClock()) {
  const state = mkdtempSync(join(FOLDER, "state-"));
  process.env["XDG_STATE_HOME"] = state;
  const said: string[] = [];
  const did: string[] = [];
  const start = (): Scheduler => new Scheduler({ clock, log: (line) => said.push(line) });
  const task = (kind: string, more: Partial<Task> = {}): Task => ({
    kind,
    repository: null,
    workspace: null,
    everyMs: HOUR,
    async run() {
      did.push(kind);
    },
    ...more,
  });
  return { clock, did, said, start, task, state, run: (kind: string): ScheduledRun => runOf(task(kind)) };
}

test("a task runs when it is due, and a task with isSoon runs at once", async () => {
  const { clock, did, start, task, run } = place();
  start().set([task("cleanup"), task("backup", { isSoon: true })]);
  await clock.pass(5_000);
  assert.deepEqual(did, ["backup"]);
  await clock.pass(HOUR);
  assert.deepEqual(did, ["backup", "cleanup", "backup"]);
  for (const { ran_at, good_at, error } of [run("cleanup"), run("backup")])
    assert.ok(ran_at !== null && good_at === ran_at && error === null);
});

test("a missed task runs once after the daemon starts again, even after a long downtime", async () => {
  const { clock, did, start, task } = place();
  const before = start();
  before.set([task("cleanup")]);
  await clock.pass(HOUR + 2_000);
  await before.stop();
  clock.jump(100 * HOUR);
  start().set([task("cleanup")]);
  await clock.pass(10_000);
  assert.deepEqual(did, ["cleanup", "cleanup"]);
});

test("a task that came due while the machine slept runs once after the wake-up", async () => {
  const { clock, did, start, task } = place();
  start().set([task("cleanup", { everyMs: 24 * HOUR })]);
  await clock.pass(HOUR);
  clock.jump(72 * HOUR);
  await clock.pass(HOUR / 4);
  assert.deepEqual(did, ["cleanup"]);
});

test("a task becomes due even if the daemon restarts more often than the task's interval", async () => {
  const { clock, did, start, task } = place();
  for (let day = 0; day < 4; day++) {
    const one = start();
    one.set([task("cleanup", { everyMs: 72 * HOUR })]);
    await clock.pass(24 * HOUR);
    await one.stop();
  }
  assert.deepEqual(did, ["cleanup"]);
});

test("a run that was recorded by a wrong clock delays no later run", async () => {
  const { clock, did, start, task } = place();
  clock.jump(10_000 * HOUR);
  const before = start();
  before.set([task("backup", { isSoon: true })]);
  await clock.pass(2_000);
  await before.stop();
  clock.jump(-10_000 * HOUR);
  start().set([task("backup", { isSoon: true })]);
  await clock.pass(2_000);
  await clock.pass(HOUR);
  assert.deepEqual(did, ["backup", "backup", "backup"]);
});

test("due tasks run one at a time", async () => {
  const { clock, start, task } = place();
  let [under, most] = [0, 0];
  const slow = async (): Promise<void> => {
    most = Math.max(most, ++under);
    await new Promise<void>((done) => void clock.after(5 * HOUR, done));
    under--;
  };
  start().set(["backup", "verify", "prune"].map((kind) => task(kind, { run: slow, isSoon: true })));
  await clock.pass(20 * HOUR);
  assert.equal(most, 1);
});

test("a failed run is recorded with its error, and the time of the last good run stays", async () => {
  const { clock, start, task, run } = place();
  let fails = false;
  start().set([
    task("backup", {
      isSoon: true,
      async run() {
        if (fails) throw new CairnError("damaged", "a pack is damaged");
      },
    }),
  ]);
  await clock.pass(2_000);
  const good = run("backup");
  fails = true;
  await clock.pass(HOUR + 2_000);
  const bad = run("backup");
  assert.equal(bad.error, "a pack is damaged");
  assert.equal(bad.good_at, good.good_at);
  assert.ok(bad.ran_at! > good.ran_at!);
});

test("a failed run is tried again after 10, 20 and 40 minutes and then each hour, whatever its error was", async () => {
  const { clock, did, start, task, run } = place();
  const failing = (code: "io" | "damaged") => async (): Promise<void> => {
    did.push(code);
    throw new CairnError(code, "no");
  };
  start().set([
    task("backup", { isSoon: true, everyMs: 24 * HOUR, run: failing("io") }),
    task("verify", { isSoon: true, everyMs: 24 * HOUR, run: failing("damaged") }),
    task("prune", { isSoon: true, everyMs: HOUR / 4, run: failing("damaged") }),
  ]);
  const times = (): number[] => ["io", "damaged"].map((code) => did.filter((each) => each === code).length);
  const counts: number[][] = [];
  for (const minutes of [1, 10, 20, 40, 60, 60]) {
    await clock.pass(minutes * 60_000 + 30_000);
    counts.push(times());
  }
  assert.deepEqual(
    counts.map(([io]) => io),
    [1, 2, 3, 4, 5, 6],
  );
  assert.equal(run("backup").failures, 6);
  assert.equal(run("verify").failures, 6);
  assert.ok(run("prune").failures! > 10, "never later than its interval");
});

test("a failed task runs again after the configuration is read again", async () => {
  const { clock, did, start, task } = place();
  const scheduler = start();
  const run = async (): Promise<void> => {
    did.push("backup");
    if (did.length === 1) throw new CairnError("not_found", "no repository");
  };
  scheduler.set([task("backup", { isSoon: true, run }), task("cleanup")]);
  await clock.pass(HOUR / 2);
  scheduler.retryFailed();
  await clock.pass(10_000);
  assert.deepEqual(did, ["backup", "backup"]);
});

test("a stopped run is not recorded, and the next start runs it again", async () => {
  const { clock, start, task, run: recorded } = place();
  const one = start();
  let stopped = false;
  const run = async ({ signal }: TaskCall): Promise<void> =>
    new Promise((_, fail) =>
      signal.addEventListener("abort", () => {
        stopped = true;
        fail(signal.reason as Error);
      }),
    );
  one.set([task("backup", { isSoon: true, run })]);
  await clock.pass(2_000);
  assert.equal(one.facts()[0]!.nextAt, null, "it is under way");
  await one.stop();
  assert.ok(stopped);
  assert.equal(recorded("backup").ran_at, null);
  assert.equal(clock.timers, 0);
});

test("a run that ends as interrupted though nobody stopped it is recorded as failed; a cancelled one is not", async () => {
  const { clock, start, task, run: recorded } = place();
  const failing = (kind: string, details?: Record<string, unknown>): Task =>
    task(kind, {
      isSoon: true,
      async run() {
        throw new CairnError("interrupted", "a command was ended by a signal", { details });
      },
    });
  const scheduler = start();
  scheduler.set([failing("backup"), failing("verify", { cancelled: true })]);
  await clock.pass(10_000);
  assert.deepEqual([recorded("backup").code, recorded("backup").failures], ["interrupted", 1]);
  assert.deepEqual([recorded("verify").ran_at, recorded("verify").error], [null, null]);
  await scheduler.stop();
});

test("a task is not repeated at once if its record cannot be written", async () => {
  const { clock, did, task, said, start, state } = place();
  const scheduler = start();
  const run = async (): Promise<void> => {
    did.push("backup");
    rmSync(join(state, "cairn/schedule"), { recursive: true });
    writeFileSync(join(state, "cairn/schedule"), "");
  };
  scheduler.set([task("backup", { isSoon: true, run })]);
  await clock.pass(HOUR / 2);
  assert.deepEqual(did, ["backup"]);
  assert.equal(scheduler.facts()[0]!.run.good_at, null);
  assert.match(said[0]!, /cannot record that .* ran: /);
});

test("a removed task does not run, and nothing is waited for", async () => {
  const { clock, did, start, task } = place();
  const one = start();
  one.set([task("backup")]);
  one.set([]);
  assert.equal(clock.timers, 0);
  await clock.pass(2 * HOUR);
  assert.deepEqual(did, []);
});

test("a task that another process runs is left to that process", async () => {
  const { clock, did, start, task } = place();
  const backup = task("backup", { isSoon: true });
  await alone(backup, "run", async () => {
    start().set([backup]);
    await clock.pass(60_000);
  });
  assert.deepEqual(did, []);
  await clock.pass(HOUR / 4);
  assert.deepEqual(did, ["backup"]);
});

test("a task with again_at runs then, before its interval has passed, and the record of that run has none", async () => {
  const { clock, did, start, task, run: recorded } = place();
  const run: Task["run"] = async ({ before: { again_at: again } }) => {
    did.push(again === undefined ? "first look" : "second look");
    return again === undefined ? { again_at: new Date(clock.now() + 23 * HOUR).toISOString() } : {};
  };
  start().set([task("prune", { everyMs: 7 * 24 * HOUR, isSoon: true, run })]);
  await clock.pass(22 * HOUR);
  assert.deepEqual(did, ["first look"]);
  await clock.pass(2 * HOUR);
  assert.deepEqual(did, ["first look", "second look"]);
  assert.equal(recorded("prune").again_at, undefined);
  await clock.pass(6 * 24 * HOUR);
  assert.equal(did.length, 2);
});
