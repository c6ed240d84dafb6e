import assert from "node:assert/strict";
import { test } from "node:test";
import { AutoSaves, type SaveRules } from "./auto-saves.ts";
import { TestClock } from "./testing-clock.ts";

const SECOND = 1000;
const RULES: SaveRules = { quietMs: 30 * SECOND, mostMs: 300 * SECOND, idleMs: null };

/** Saves of workspaces, with the second of each. */
function place({ watched = true, takes = 0 } = {}) {
  const clock = new TestClock();
  const start = clock.now();
  const saved: [id: string, second: number][] = [];
  let listener: ((id: string) => void) | null = null;
  let fails = false;
  let most = 0;
  let under = 0;
  const saves = new AutoSaves({
    clock,
    changes: {
      listen(given) {
        listener = given;
        return () => void (listener = null);
      },
      tells: () => watched,
    },
    async save(id) {
      saved.push([id, (clock.now() - start) / SECOND]);
      most = Math.max(most, ++under);
      if (takes > 0) await new Promise<void>((done) => void clock.after(takes, done));
      under--;
      if (fails) throw new Error("no");
    },
  });
  return {
    clock,
    saves,
    saved,
    change: (id = "a") => listener?.(id),
    isListening: () => listener !== null,
    fail: (now: boolean) => void (fails = now),
    most: () => most,
  };
}

test("a folder is saved once it was quiet, and again only after a change", async () => {
  const { clock, saves, saved, change } = place();
  saves.set(RULES, ["a"]);
  // Nobody knows what changed before.
  await clock.pass(31 * SECOND);
  assert.deepEqual(saved, [["a", 30]]);
  await clock.pass(3600 * SECOND);
  assert.equal(saved.length, 1);
  assert.equal(clock.timers, 0, "nothing is waited for while nothing changes");
  change();
  await clock.pass(20 * SECOND);
  change();
  await clock.pass(29 * SECOND);
  assert.equal(saved.length, 1);
  await clock.pass(2 * SECOND);
  assert.equal(saved.length, 2);
});

test("a folder that is never quiet is saved at the longest interval", async () => {
  const { clock, saves, saved, change } = place();
  saves.set(RULES, ["a"]);
  for (let second = 0; second < 900; second += 10) {
    change();
    await clock.pass(10 * SECOND);
  }
  assert.deepEqual(
    saved.map(([, second]) => second),
    [300, 600, 900],
  );
});

test("a change during a save leads to another save", async () => {
  const { clock, saves, saved, change } = place({ takes: 60 * SECOND });
  saves.set(RULES, ["a"]);
  await clock.pass(40 * SECOND);
  change();
  await clock.pass(100 * SECOND);
  assert.deepEqual(
    saved.map(([, second]) => second),
    [30, 90],
  );
});

test("a failed save is tried again after the longest interval, even if nothing changes", async () => {
  const { clock, saves, saved, fail } = place();
  fail(true);
  saves.set(RULES, ["a"]);
  await clock.pass(600 * SECOND);
  fail(false);
  await clock.pass(7200 * SECOND);
  assert.deepEqual(
    saved.map(([, second]) => second),
    [30, 330, 630],
  );
});

test("a folder without change notices is saved at intervals", async () => {
  const { clock, saves, saved } = place({ watched: false });
  saves.set(RULES, ["a", "b"]);
  await clock.pass(650 * SECOND);
  assert.deepEqual(saved, [
    ["a", 300],
    ["b", 300],
    ["a", 600],
    ["b", 600],
  ]);
});

test("an unchanged folder is saved again before the limit on its age", async () => {
  const { clock, saves, saved } = place();
  saves.set({ ...RULES, idleMs: 1800 * SECOND }, ["a"]);
  await clock.pass(4000 * SECOND);
  assert.deepEqual(
    saved.map(([, second]) => second),
    [30, 1830, 3630],
  );
});

test("a folder is saved soon after the machine slept or the clock was set back", async () => {
  const { clock, saves, saved } = place({ watched: false });
  saves.set({ ...RULES, mostMs: 3600 * SECOND }, ["a"]);
  await clock.pass(60 * SECOND);
  clock.jump(8 * 3600 * SECOND);
  await clock.pass(900 * SECOND);
  assert.equal(saved.length, 1);
  clock.jump(-9 * 3600 * SECOND);
  await clock.pass(900 * SECOND);
  assert.equal(saved.length, 2);
});

test("at most two saves run at the same time, and none after a stop", async () => {
  const { clock, saves, saved, change, most, isListening } = place({ takes: 5 * SECOND });
  saves.set(
    RULES,
    Array.from({ length: 9 }, (_, i) => `w${i}`),
  );
  await clock.pass(100 * SECOND);
  assert.equal(saved.length, 9);
  assert.equal(most(), 2);
  await saves.stop();
  assert.equal(isListening(), false);
  change("w1");
  await clock.pass(1000 * SECOND);
  assert.equal(saved.length, 9);
  assert.equal(clock.timers, 0);
});

test("no folder is saved after its rules are removed or it is no longer served", async () => {
  const { clock, saves, saved, isListening } = place();
  saves.set(RULES, ["a", "b"]);
  saves.set(RULES, ["b"]);
  await clock.pass(60 * SECOND);
  assert.deepEqual(
    saved.map(([id]) => id),
    ["b"],
  );
  saves.set(null, ["b"]);
  assert.equal(isListening(), false);
  assert.equal(clock.timers, 0);
});
