import assert from "node:assert/strict";
import { test } from "node:test";
import { changesOf, firstRecord, type Measure, type Recorded, recordOf } from "./limits.ts";

const FIXED = { "files in a folder": 25 };
const lines = (number: number): Measure => ({ limit: "lines", of: "fs", number });

/** Returns what is recorded after `measures`, with or without a reason for growth. */
function after(recorded: Recorded, measures: readonly Measure[], reason: string | null = null): Recorded {
  return recordOf(recorded, changesOf(measures, recorded, FIXED), FIXED, reason);
}

test("a figure that grew, or has no limit yet, is found", () => {
  const recorded = firstRecord([lines(10)], FIXED);
  assert.deepEqual(changesOf([lines(10)], recorded, FIXED), { grown: [], fallen: [] });
  assert.deepEqual(changesOf([lines(11)], recorded, FIXED).grown, [{ figure: "lines: fs", number: 11, limit: 10 }]);
  const room = { limit: "lines", of: "room", number: 1 };
  assert.deepEqual(changesOf([lines(10), room], recorded, FIXED).grown, [
    { figure: "lines: room", number: 1, limit: null },
  ]);
});

test("a figure rises only with a reason, and its least number stays", () => {
  const recorded = firstRecord([lines(10)], FIXED);
  assert.deepEqual(after(recorded, [lines(12)]), recorded);
  const raised = after(recorded, [lines(12)], "a new call");
  assert.deepEqual(raised, {
    least: { "lines: fs": 10 },
    raised: [{ reason: "a new call", to: { "lines: fs": 12 } }],
  });
  assert.deepEqual(changesOf([lines(12)], raised, FIXED), { grown: [], fallen: [] });
  assert.deepEqual(after(raised, [lines(13)], "a new call").raised, [
    { reason: "a new call", to: { "lines: fs": 13 } },
  ]);
});

test("a figure that fell lowers its last raise, and ends raises above its number", () => {
  const recorded: Recorded = {
    least: { "lines: fs": 10 },
    raised: [
      { reason: "first", to: { "lines: fs": 12 } },
      { reason: "second", to: { "lines: fs": 15 } },
    ],
  };
  const lowered = (number: number): Recorded => after(recorded, [lines(number)]);
  assert.deepEqual(changesOf([lines(14)], recorded, FIXED).fallen, [{ figure: "lines: fs", number: 14, limit: 15 }]);
  assert.deepEqual(
    lowered(14).raised.map(({ to }) => to["lines: fs"]),
    [12, 14],
  );
  assert.deepEqual(lowered(11), { least: { "lines: fs": 10 }, raised: [{ reason: "first", to: { "lines: fs": 11 } }] });
  assert.deepEqual(lowered(9), { least: { "lines: fs": 9 }, raised: [] });
});

test("a folder above the fixed limit of its kind is recorded until it is below, or gone", () => {
  const folder = (number: number): Measure => ({ limit: "files in a folder", of: "fs", number });
  const recorded = firstRecord([folder(30)], FIXED);
  assert.deepEqual(recorded.least, { "files in a folder: fs": 30 });
  assert.deepEqual(after(recorded, [folder(27)]).least, { "files in a folder: fs": 27 });
  assert.deepEqual(after(recorded, [folder(20)]).least, {});
  assert.deepEqual(after(recorded, []).least, {});
  assert.deepEqual(firstRecord([folder(25)], FIXED).least, {});
});

test("a trip's figures may differ by a hundredth, other figures by nothing", () => {
  const functions = (number: number): Measure => ({ limit: "functions called", of: "save", number });
  const recorded = firstRecord([functions(1000), { limit: "lines", of: "", number: 1000 }], FIXED);
  const all = { limit: "lines", of: "", number: 1001 };
  assert.deepEqual(
    changesOf([functions(1010), all], recorded, FIXED).grown.map(({ figure }) => figure),
    ["lines"],
  );
  assert.equal(changesOf([functions(1011), all], recorded, FIXED).grown.length, 2);
  assert.deepEqual(changesOf([functions(990), all], recorded, FIXED).fallen, []);
});
