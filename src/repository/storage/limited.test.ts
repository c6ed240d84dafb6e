import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { CairnError } from "../../errors.ts";
import { CallStorage } from "./call-storage.ts";
import { CountingStorage } from "./testing-counting.ts";
import { LimitedStorage, TokenBucket, type LimitTimers } from "./limited.ts";
import { MemoryStorage } from "./testing-memory.ts";
import { storageContract } from "./storage.contract.ts";

const NAME = "ab".repeat(32);

/** A clock that only pauses move. */
function timers(): LimitTimers & { at: number } {
  const clock = {
    at: 0,
    now: () => clock.at,
    sleep: async (ms: number) => {
      clock.at += ms;
    },
  };
  return clock;
}

storageContract(
  "limited",
  () => new LimitedStorage(new MemoryStorage(), { calls: 2, uploadRate: 1e9, downloadRate: 1e9 }),
);

test("a token bucket keeps its rate for pieces of any size", async () => {
  for (const piece of [100, 1000, 25_000]) {
    const clock = timers();
    const bucket = new TokenBucket(1000, clock);
    for (let sent = 0; sent < 100_000; sent += piece) await bucket.take(piece);
    await bucket.take(0);
    // All but the burst of a quarter of a second is waited for.
    assert.equal(clock.at, 99_750, `${piece} bytes at a time`);
  }
});

test("an idle token bucket saves up at most one burst", async () => {
  const clock = timers();
  const bucket = new TokenBucket(1000, clock);
  clock.at = 3_600_000;
  await bucket.take(250);
  await bucket.take(1000);
  await bucket.take(0);
  assert.equal(clock.at, 3_601_000);
});

test("a token bucket serves callers in the order of their calls", async () => {
  const order: number[] = [];
  const bucket = new TokenBucket(1000, timers());
  await Promise.all([1, 2, 3].map((who) => bucket.take(5000).then(() => order.push(who))));
  assert.deepEqual(order, [1, 2, 3]);
});

test("an abort ends the wait for a token bucket, without delaying later callers", async () => {
  const stop = new AbortController();
  const bucket = new TokenBucket(1);
  await bucket.take(1_000_000);
  const waiting = [bucket.take(1, stop.signal), bucket.take(1, stop.signal)];
  setImmediate(() => stop.abort());
  for (const each of waiting) {
    await assert.rejects(each, (error) => error instanceof CairnError && error.code === "interrupted");
  }
  await bucket.take(1_000_000, stop.signal);
  await bucket.take(1, stop.signal);
});

test("an abort ends a wait behind another caller of a token bucket at once, and takes no tokens", async () => {
  const stop = new AbortController();
  const gate = Promise.withResolvers<void>();
  const clock = { at: 0 };
  const sleep = async (ms: number): Promise<void> => gate.promise.then(() => void (clock.at += ms));
  const bucket = new TokenBucket(1000, { now: () => clock.at, sleep });
  await bucket.take(1250);
  const first = bucket.take(1, new AbortController().signal);
  const behind = bucket.take(1_000_000, stop.signal);
  stop.abort();
  // Before the other's wait is over.
  await assert.rejects(behind, { code: "interrupted" });
  gate.resolve();
  await first;
  await bucket.take(1);
  assert.ok(clock.at < 2000, `${clock.at} ms were waited for`);
});

test("limited storage limits uploads and downloads separately", async () => {
  const folder = mkdtempSync(join(tmpdir(), "cairn-limited-"));
  try {
    const clock = timers();
    const storage = new LimitedStorage(new MemoryStorage(), { uploadRate: 1000, downloadRate: 4000 }, clock);
    await storage.save("data", NAME, Buffer.alloc(10_250));
    writeFileSync(join(folder, "pack"), Buffer.alloc(3000));
    await storage.saveFile("data", "cd".repeat(32), join(folder, "pack"));
    assert.equal(clock.at, 10_000);
    await storage.load("data", NAME);
    await storage.load("data", NAME, { offset: 0, length: 1000 });
    assert.equal(clock.at, 10_000 + Math.ceil(9250 / 4));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test("limited storage never runs more calls at once than allowed, also if calls fail", async () => {
  let under = 0;
  let most = 0;
  const slow = new MemoryStorage();
  const load = slow.load.bind(slow);
  slow.load = async (...args) => {
    most = Math.max(most, ++under);
    await new Promise((resolve) => setImmediate(resolve));
    under--;
    return load(...args);
  };
  const counting = new CountingStorage(slow);
  const storage = new LimitedStorage(counting, { calls: 3 });
  const tried = await Promise.allSettled(Array.from({ length: 20 }, () => storage.load("data", NAME)));
  assert.equal(tried.filter(({ status }) => status === "rejected").length, 20);
  assert.equal(counting.count("load"), 20);
  assert.equal(most, 3);
});

test("limited storage drops an aborted caller's waiting calls, except commits", async () => {
  const stop = new AbortController();
  const gate = Promise.withResolvers<void>();
  const slow = new MemoryStorage();
  const load = slow.load.bind(slow);
  slow.load = async (...args) => {
    await gate.promise;
    return load(...args);
  };
  await slow.save("data", NAME, Buffer.from("content"));
  const counting = new CountingStorage(slow);
  const storage = new LimitedStorage(counting, { calls: 1 });
  const mine = new CallStorage(storage, { signal: stop.signal });
  const first = mine.load("data", NAME);
  const waiting = [mine.load("data", NAME), mine.list("data"), mine.save("data", NAME, Buffer.from("content"))];
  const lock = mine.save("locks", NAME, Buffer.from("lock"));
  const other = storage.load("data", NAME);
  stop.abort();
  gate.resolve();
  await first;
  for (const each of waiting)
    await assert.rejects(each, (error) => error instanceof CairnError && error.code === "interrupted");
  await Promise.all([lock, other]);
  assert.deepEqual([...counting.counts].toSorted(), [
    ["load data", 2],
    ["save locks", 1],
  ]);
  await mine.remove("locks", NAME);
});

test(
  "limited storage does not delay calls for locks while packs wait for the rate limit",
  { timeout: 10_000 },
  async () => {
    const clock = { at: 0, go: (): void => undefined };
    const sleep = (): Promise<void> => new Promise((resolve) => (clock.go = resolve));
    const storage = new LimitedStorage(
      new MemoryStorage(),
      { uploadRate: 1000, downloadRate: 1000, calls: 2 },
      { now: () => clock.at, sleep },
    );
    const stop = new AbortController();
    await storage.save("data", "ab".repeat(32), Buffer.alloc(1_000_000));
    const packs = ["cd", "ef", "01"].map((name) =>
      storage.save("data", name.repeat(32), Buffer.alloc(1_000_000), { signal: stop.signal }),
    );
    await storage.save("locks", NAME, Buffer.from("lock"));
    assert.equal((await storage.list("locks")).length, 1);
    assert.equal(Buffer.from(await storage.load("locks", NAME)).toString(), "lock");
    await storage.remove("locks", NAME);
    assert.equal(clock.at, 0);
    stop.abort();
    clock.go();
    for (const pack of packs) await assert.rejects(pack, { code: "interrupted" });
  },
);
