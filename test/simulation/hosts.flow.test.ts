import assert from "node:assert/strict";
import { test } from "node:test";
import { LONG } from "../fixtures/long.ts";
import { simulate } from "./hosts.ts";

/** A seed takes a third of a processor second. `npm run simulate` runs others. */
const SEEDS = LONG ? 200 : 60;

test("hosts that back up, copy, forget and prune at once lose no acknowledged snapshot, whatever the storage answers", async () => {
  for (let seed = 1; seed <= SEEDS; seed++) {
    const { broken } = await simulate(seed);
    assert.equal(broken, null, `seed ${seed}: npm run simulate -- --seed ${seed}`);
  }
});

test("the same seed gives the same trace", async () => {
  const [first, second] = [await simulate(7), await simulate(7)];
  assert.ok(first.trace.length > 50);
  assert.deepEqual(first.trace, second.trace);
});
