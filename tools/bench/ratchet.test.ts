import assert from "node:assert/strict";
import { test } from "node:test";
import { compareRatios, ratiosOf } from "./ratchet.ts";
import type { Result } from "./result.ts";

function result(cairn: number[], peer: number[]): Result {
  const samples = { cairn, "cairn --no-prove": [1], restic: [9], "restic 0.18.1": peer };
  return { case: "verify", data: "small", unit: "ms", samples, bars: [], meaning: "", notes: [] };
}

test("the ratchet compares Cairn's least time with that of each peer of a known version", () => {
  assert.deepEqual(ratiosOf([result([60, 50], [100, 120])]), { "verify, small: cairn / restic 0.18.1": 0.5 });
});

test("the ratchet names a ratio that grew by more than a tenth, and a peer that was not measured", () => {
  const name = "verify, small: cairn / restic 0.18.1";
  const then = { version: "0.1.0", ratios: { [name]: 0.5, "save: cairn / rustic 0.11.4": 0.3 } };
  const fallen = compareRatios(ratiosOf([result([56], [100])]), then);
  assert.match(
    fallen.join("\n"),
    /^1 of 1 ratios grew by more than a tenth since 0\.1\.0\n.*0\.560, was 0\.500 \(\+12 %\) {2}FELL BEHIND\n.*rustic 0\.11\.4: not measured/,
  );
  const kept = compareRatios(ratiosOf([result([54], [100])]), then);
  assert.match(kept.join("\n"), /^0 of 1 ratios[^]*\(\+8 %\)\n/);
  assert.doesNotMatch(kept.join("\n"), /FELL/);
});
