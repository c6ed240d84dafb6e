import assert from "node:assert/strict";
import { test } from "node:test";
import { ratioBars, resultLines } from "./result.ts";

test("a contender that no bar is about is shown with its ratio, and Cairn's other ways of doing it are not", () => {
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
