import assert from "node:assert/strict";
import { test } from "node:test";
import { partCount, partsToRead, partTimes } from "./read-parts.ts";

const DAY = 86_400_000;

/** Runs on some days, and returns the longest time for which any part went unread, in days. */
function longest(rules: { withinMs: number; everyMs: number }, runsOn: (day: number) => boolean, days = 200): number {
  const of = partCount(rules.withinMs, rules.everyMs);
  let times = partTimes(undefined, of, new Date(0).toISOString());
  let most = 0;
  for (let day = 0; day <= days; day++) {
    const now = day * DAY;
    most = Math.max(most, ...times.map((at) => now - at));
    if (!runsOn(day)) continue;
    const parts = partsToRead(times, { now, ...rules });
    times = times.map((at, part) => (parts.includes(part) ? now : at));
  }
  return most / DAY;
}

test("every part is read again within the time limit if every run takes place", () => {
  for (const [within, every] of [
    [30, 1],
    [30, 7],
    [7, 2],
    [2, 2],
    [3, 2],
    [100, 9],
  ] as const) {
    const rules = { withinMs: within * DAY, everyMs: every * DAY };
    assert.ok(longest(rules, (day) => day % every === 0) <= within, `${within} by ${every}`);
  }
});

test("each run reads one part if no run was missed", () => {
  const rules = { withinMs: 30 * DAY, everyMs: DAY };
  let times = partTimes(undefined, partCount(rules.withinMs, rules.everyMs), new Date(0).toISOString());
  for (let day = 0; day < 100; day++) {
    const parts = partsToRead(times, { now: day * DAY, ...rules });
    assert.equal(parts.length, 1);
    times = times.map((at, part) => (parts.includes(part) ? day * DAY : at));
  }
});

test("the run after missed runs reads more parts", () => {
  const rules = { withinMs: 30 * DAY, everyMs: DAY };
  // Away for five days, from wherever the turn is: nothing was read longer than 30 days ago.
  for (let start = 30; start < 80; start++)
    assert.ok(longest(rules, (day) => day < start || day >= start + 5) <= 30, String(start));
  // Away for longer than the time: all that is too old is read at once.
  assert.ok(longest(rules, (day) => day < 50 || day > 90, 91) > 30);
  const times = partTimes(undefined, 24, new Date(0).toISOString());
  assert.equal(partsToRead(times, { now: 90 * DAY, ...rules }).length, 24);
});

test("a changed number of parts makes no part look newer than it is", () => {
  const at = (day: number): string => new Date(day * DAY).toISOString();
  assert.deepEqual(partTimes([at(3), at(1), at(2)], 2, at(0)), [DAY, DAY]);
  assert.deepEqual(partTimes([at(3), at(1)], 2, at(0)), [3 * DAY, DAY]);
});

test("each run reads all packs if there is no time limit", () => {
  assert.equal(partCount(null, DAY), 1);
  assert.deepEqual(partsToRead([0], { now: 5 * DAY, withinMs: null, everyMs: DAY }), [0]);
});
