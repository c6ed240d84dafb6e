import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { IdleSealer } from "./idle-sealer.ts";

test("a sealing that takes its time to stop is waited for, by the next one and by who closes", async () => {
  const { promise: stopped, resolve: stop } = Promise.withResolvers<void>();
  const { promise: began, resolve: begin } = Promise.withResolvers<void>();
  let [running, most, ended] = [0, 0, 0];
  const seal = async (): Promise<void> => {
    most = Math.max(most, ++running);
    begin();
    await stopped;
    running--;
    ended++;
  };
  const sealer = new IdleSealer({ idleMs: 5, onWarning: undefined, seal });
  // Its own timer keeps nothing going.
  await Promise.all([began, setTimeout(50)]);
  sealer.begin();
  sealer.end();
  await setTimeout(50);
  const closed = sealer.close();
  stop();
  await closed;
  assert.deepEqual([running, most, ended], [0, 1, 1]);
});
