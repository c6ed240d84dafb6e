import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { IdleSealer } from "./idle-sealer.ts";

test("IdleSealer.close waits for a slow seal, and only one seal runs at a time", async () => {
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
  const sealer = new IdleSealer({ idleMs: 5, calls: 0, before: Promise.resolve(), onWarning: undefined, seal });
  // Its own timer keeps nothing going.
  await Promise.all([began, setTimeout(50)]);
  void sealer.begin();
  sealer.end();
  await setTimeout(50);
  const closed = sealer.close();
  stop();
  await closed;
  assert.deepEqual([running, most, ended], [0, 1, 1]);
});

test("IdleSealer does not seal before calls have ended that were already running", async () => {
  const { promise: sealed, resolve } = Promise.withResolvers<void>();
  let isEnded = false;
  const seal = async (): Promise<void> => {
    assert.ok(isEnded);
    resolve();
  };
  const failures: string[] = [];
  const onWarning = (message: string): void => void failures.push(message);
  const sealer = new IdleSealer({ idleMs: 1, calls: 1, before: Promise.resolve(), onWarning, seal });
  await setTimeout(30);
  isEnded = true;
  sealer.end();
  await Promise.all([sealed, setTimeout(30)]);
  assert.deepEqual(failures, []);
  await sealer.close();
});

test("IdleSealer.begin waits until a running seal has stopped, also that of an earlier IdleSealer", async () => {
  const { promise: began, resolve: begin } = Promise.withResolvers<void>();
  let isHeld = false;
  const seal = async (signal: AbortSignal): Promise<void> => {
    isHeld = true;
    begin();
    await new Promise((resolve) => signal.addEventListener("abort", resolve));
    await setTimeout(50);
    isHeld = false;
  };
  const first = new IdleSealer({ idleMs: 1, calls: 0, before: Promise.resolve(), onWarning: undefined, seal });
  await Promise.all([began, setTimeout(30)]);
  const next = new IdleSealer({ idleMs: 1, calls: 0, before: first.close(), onWarning: undefined, seal });
  await next.begin();
  assert.equal(isHeld, false);
  await next.close();
});
