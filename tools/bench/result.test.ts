import assert from "node:assert/strict";
import { test } from "node:test";
import { newestBar, ratioBars, resultLines } from "./result.ts";

test("a result shows the ratio to a program without a limit, and no ratio between two ways of Cairn", () => {
  const samples = { cairn: [100, 120, 110], "cairn, from a point": [50], restic: [200], "rustic 0.11.4": [440] };
  const shown = resultLines({
    case: "x",
    unit: "ms",
    samples,
    bars: ratioBars(samples, { restic: 0.5 }),
    meaning: "",
    notes: [],
  }).join("\n");
  assert.match(shown, /cairn \/ restic +0\.550 +bar ≤ 0\.500: FALLS SHORT/);
  assert.match(shown, /cairn \/ rustic 0\.11\.4 +0\.250 +no bar/);
  assert.doesNotMatch(shown, /cairn \/ cairn|cairn \/ restic +0\.550 +no bar/);
});

test("newestBar compares with the faster of the newest restic and rustic, and has no limit if neither was measured", () => {
  const samples = { cairn: [30], "cairn, cold": [80], restic: [10], "restic 0.18.1": [120], "rustic 0.11.4": [100] };
  const bar = { what: "cairn / rustic 0.11.4, the faster", value: 0.3, limit: 0.33, unit: "ratio" };
  assert.deepEqual(newestBar(samples, 0.33), [bar]);
  assert.equal(newestBar(samples, 0.33, "cairn, cold")[0]?.value, 0.8);
  assert.deepEqual(newestBar({ cairn: [30], restic: [10] }, 0.33), []);
});
