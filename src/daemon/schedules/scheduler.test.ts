import assert from "node:assert/strict";
import { test } from "node:test";
import { CairnError } from "../../errors.ts";
import { SCHEDULED, type ScheduledRun } from "../../formats/records/daemon-state.ts";
import { Scheduler, type Task } from "./scheduler.ts";
import { TestClock } from "./testing-clock.ts";

const HOUR = 3_600_000;

/** A scheduler of one daemon after the other, over the same records. */
function place(clock = new TestClock()) {
  let runs: ScheduledRun[] = [];
  const said: string[] = [];
  const did: string[] = [];
  const start = (): Scheduler =>
    new Scheduler({
      clock,
      runs,
      keep: (given) => void (runs = structuredClone(given)),
      log: (line) => said.push(line),
    });
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
  return { clock, did, said, start, task, runs: () => runs };
}

test("a task runs when it is due, and a task with isSoon runs at once", async () => {
  const { clock, did, start, task, runs } = place();
  start().set([task("cleanup"), task("backup", { isSoon: true })], SCHEDULED);
  await clock.pass(5_000);
  assert.deepEqual(did, ["backup"]);
  await clock.pass(HOUR);
  assert.deepEqual(did, ["backup", "cleanup", "backup"]);
  assert.ok(runs().every(({ ran_at, good_at, error }) => ran_at !== null && good_at === ran_at && error === null));
});

test("a missed task runs once after the daemon starts again, even after a long downtime", async () => {
  const { clock, did, start, task } = place();
  const before = start();
  before.set([task("cleanup")], SCHEDULED);
  await clock.pass(HOUR + 2_000);
  await before.stop();
  clock.jump(100 * HOUR);
  start().set([task("cleanup")], SCHEDULED);
  await clock.pass(10_000);
  assert.deepEqual(did, ["cleanup", "cleanup"]);
});

test("a task that came due while the machine slept runs once after the wake-up", async () => {
  const { clock, did, start, task } = place();
  start().set([task("cleanup", { everyMs: 24 * HOUR })], SCHEDULED);
  await clock.pass(HOUR);
  clock.jump(72 * HOUR);
  await clock.pass(HOUR / 4);
  assert.deepEqual(did, ["cleanup"]);
});

test("a task becomes due even if the daemon restarts more often than the task's interval", async () => {
  const { clock, did, start, task } = place();
  for (let day = 0; day < 4; day++) {
    const one = start();
    one.set([task("cleanup", { everyMs: 72 * HOUR })], SCHEDULED);
    await clock.pass(24 * HOUR);
    await one.stop();
  }
  assert.deepEqual(did, ["cleanup"]);
});

test("a run that was recorded by a wrong clock delays no later run", async () => {
  const { clock, did, start, task } = place();
  clock.jump(10_000 * HOUR);
  const before = start();
  before.set([task("backup", { isSoon: true })], SCHEDULED);
  await clock.pass(2_000);
  await before.stop();
  clock.jump(-10_000 * HOUR);
  start().set([task("backup", { isSoon: true })], SCHEDULED);
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
  start().set(
    ["backup", "verify", "prune"].map((kind) => task(kind, { run: slow, isSoon: true })),
    SCHEDULED,
  );
  await clock.pass(20 * HOUR);
  assert.equal(most, 1);
});

test("a failed run is recorded with its error, and the time of the last good run stays", async () => {
  const { clock, start, task, runs } = place();
  let fails = false;
  start().set(
    [
      task("backup", {
        isSoon: true,
        async run() {
          if (fails) throw new CairnError("damaged", "a pack is damaged");
        },
      }),
    ],
    SCHEDULED,
  );
  await clock.pass(2_000);
  const [good] = runs();
  fails = true;
  await clock.pass(HOUR + 2_000);
  const [bad] = runs();
  assert.equal(bad!.error, "a pack is damaged");
  assert.equal(bad!.good_at, good!.good_at);
  assert.ok(bad!.ran_at! > good!.ran_at!);
});

test("a run that failed with a temporary error is tried again after ten minutes, other runs when due", async () => {
  const { clock, did, start, task } = place();
  const failing = (code: "io" | "damaged") => async (): Promise<void> => {
    did.push(code);
    throw new CairnError(code, "no");
  };
  start().set(
    [
      task("backup", { isSoon: true, everyMs: 24 * HOUR, run: failing("io") }),
      task("verify", { isSoon: true, everyMs: 24 * HOUR, run: failing("damaged") }),
    ],
    SCHEDULED,
  );
  await clock.pass(HOUR);
  assert.deepEqual(
    [did.filter((each) => each === "io").length, did.filter((each) => each === "damaged").length],
    [6, 1],
  );
});

test("a failed task runs again after the configuration is read again", async () => {
  const { clock, did, start, task } = place();
  const scheduler = start();
  const run = async (): Promise<void> => {
    did.push("backup");
    if (did.length === 1) throw new CairnError("not_found", "no repository");
  };
  scheduler.set([task("backup", { isSoon: true, run }), task("cleanup")], SCHEDULED);
  await clock.pass(HOUR / 2);
  scheduler.retryFailed();
  await clock.pass(10_000);
  assert.deepEqual(did, ["backup", "backup"]);
});

test("a stopped run is not recorded, and the next start runs it again", async () => {
  const { clock, start, task, runs } = place();
  const one = start();
  let stopped = false;
  const run = async (signal: AbortSignal): Promise<void> =>
    new Promise((_, fail) =>
      signal.addEventListener("abort", () => {
        stopped = true;
        fail(signal.reason as Error);
      }),
    );
  one.set([task("backup", { isSoon: true, run })], SCHEDULED);
  await clock.pass(2_000);
  assert.equal(one.facts()[0]!.nextAt, null, "it is under way");
  await one.stop();
  assert.ok(stopped);
  assert.equal(runs()[0]!.ran_at, null);
  assert.equal(clock.timers, 0);
});

test("a task is not repeated at once if the state cannot be written", async () => {
  const { clock, did, task, said } = place();
  let isFull = false;
  const scheduler = new Scheduler({
    clock,
    runs: [],
    keep() {
      if (isFull) throw new CairnError("no_space", "the disk is full");
    },
    log: (line) => said.push(line),
  });
  scheduler.set([task("backup", { isSoon: true })], SCHEDULED);
  isFull = true;
  await clock.pass(HOUR / 2);
  assert.deepEqual(did, ["backup"]);
  assert.equal(scheduler.facts()[0]!.run.good_at, null);
  assert.match(said[0]!, /cannot record that .* ran: the disk is full/);
});

test("records of removed tasks are removed, and records of a later version are kept", async () => {
  const { clock, start, task, runs } = place();
  const one = start();
  one.set([task("backup"), task("hologram")], ["backup"]);
  one.set([], ["backup"]);
  assert.deepEqual(
    runs().map(({ kind }) => kind),
    ["hologram"],
  );
  assert.equal(clock.timers, 0, "nothing is waited for");
});

test("a task with again_at runs then, before its interval has passed, and the record of that run has none", async () => {
  const { clock, did, start, task, runs } = place();
  const run: Task["run"] = async (_signal, { again_at: again }) => {
    did.push(again === undefined ? "first look" : "second look");
    return again === undefined ? { again_at: new Date(clock.now() + 23 * HOUR).toISOString() } : {};
  };
  start().set([task("prune", { everyMs: 7 * 24 * HOUR, isSoon: true, run })], SCHEDULED);
  await clock.pass(22 * HOUR);
  assert.deepEqual(did, ["first look"]);
  await clock.pass(2 * HOUR);
  assert.deepEqual(did, ["first look", "second look"]);
  assert.equal(runs()[0]!.again_at, undefined);
  await clock.pass(6 * 24 * HOUR);
  assert.equal(did.length, 2);
});
