import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { eventually } from "../../test/fixtures/eventually.ts";
import { type GrantedThread, WorkerThread } from "./worker-thread.ts";
import { giveBackThreads, takeThreads, withThreads } from "./threads.ts";

const MODULE = new URL("threads.ts", import.meta.url).href;
/** Threads of one operation, which are kept. */
const KEPT = 2;

const verify = { kind: "verify" } as const;

/** "none" once a thread that is started now is there, before which one that was given to somebody earlier would be. */
async function noneBy(): Promise<"none"> {
  const later = new WorkerThread("verify");
  await later.started();
  later.end();
  return "none";
}

function threadsOfProcess(): number {
  return Number(/^Threads:\s+(\d+)$/mu.exec(fs.readFileSync("/proc/self/status", "utf8"))![1]);
}

test("takeThreads serves callers in the order of their calls, with at most 8 threads in use at once", async () => {
  // Started beforehand: how long that takes is another matter.
  giveBackThreads(await takeThreads({ ...verify, count: 64 }));
  const order: number[] = [];
  let inUse = 0;
  let most = 0;
  await Promise.all(
    Array.from({ length: 24 }, async (_, i) => {
      const threads = await takeThreads(verify);
      order.push(i);
      inUse += threads.length;
      most = Math.max(most, inUse);
      await sleep(10);
      inUse -= threads.length;
      giveBackThreads(threads);
    }),
  );
  assert.ok(most >= 4 && most <= 8, `${most} at once`);
  assert.deepEqual(
    order,
    order.map((_, i) => i),
  );
});

test("takeThreads returns the free threads to a caller that asks for more than there are", async () => {
  const all = await takeThreads({ ...verify, count: 64 });
  assert.ok(all.length >= 4 && all.length <= 8, `${all.length}`);
  const many = takeThreads({ ...verify, count: 64 });
  const last = takeThreads(verify);
  assert.equal(await Promise.race([many, last, noneBy()]), "none");
  giveBackThreads(all.splice(0, 2));
  assert.equal((await many).length, 2);
  assert.equal(await Promise.race([last, noneBy()]), "none");
  giveBackThreads(await many);
  giveBackThreads(await last);
  giveBackThreads(all);
});

test("work that waits for another machine does not keep threads from local work", async () => {
  const { promise: answered, resolve: answer } = Promise.withResolvers<void>();
  const far = (): { begun: Promise<readonly GrantedThread[]>; done: Promise<void> } => {
    const { promise: begun, resolve: begin } = Promise.withResolvers<readonly GrantedThread[]>();
    const done = withThreads({ ...verify, isFar: true }, async (threads) => {
      begin(threads);
      await answered;
    });
    return { begun, done };
  };
  const calls = Array.from({ length: 6 }, far);
  assert.equal((await calls[1]!.begun).length, 2);
  assert.equal(await Promise.race([calls[5]!.begun, noneBy()]), "none");
  const near = await takeThreads({ ...verify, count: 64 });
  assert.ok(near.length >= 4);
  answer();
  await Promise.all(calls.map(async ({ done }) => done));
  giveBackThreads(near);
});

test("withThreads returns its threads to the pool if the work throws", async () => {
  for (let i = 0; i < 8; i++)
    await assert.rejects(
      withThreads(verify, () => {
        throw new TypeError("no such thing");
      }),
      TypeError,
    );
  giveBackThreads(await takeThreads(verify));
});

test("an abort ends a waiting takeThreads at once, without delaying later callers", async () => {
  const all = await takeThreads({ ...verify, count: 64 });
  const stopper = new AbortController();
  const stopped = takeThreads({ ...verify, signal: stopper.signal });
  const behind = takeThreads(verify);
  stopper.abort();
  // Before anybody gives threads back.
  await assert.rejects(stopped, { name: "CairnError", code: "interrupted" });
  giveBackThreads(all.splice(0, 2));
  giveBackThreads(await behind);
  giveBackThreads(all);
});

test("takeThreads that is aborted while threads start returns all of them to the pool", async () => {
  const stopper = new AbortController();
  const stopped = takeThreads({ ...verify, count: 64, signal: stopper.signal });
  stopper.abort();
  await assert.rejects(stopped, { name: "CairnError", code: "interrupted" });
  const all = await takeThreads({ ...verify, count: 64 });
  assert.ok(all.length >= 4, `${all.length}`);
  giveBackThreads(all);
});

test(
  "idle threads end after a while, except the two that one operation needs",
  { skip: process.platform === "linux" ? false : "only Linux says how many threads a process has" },
  async () => {
    // Those of both lines are all that there can be, so that none is idle beside them.
    let most = 0;
    const made: GrantedThread[] = [];
    await withThreads({ ...verify, isFar: true, count: 64 }, async (far) => {
      const near = await takeThreads({ ...verify, count: 64 });
      // Those that an earlier test has ended may still be among these.
      most = threadsOfProcess();
      made.push(...far, ...near);
      giveBackThreads(near);
      const again = await takeThreads({ ...verify, count: 64 });
      assert.ok(
        again.every((thread) => near.includes(thread)),
        "kept for whoever comes next",
      );
      giveBackThreads(again);
    });
    assert.ok(made.length > KEPT);
    await eventually("those that nobody wants end", () => threadsOfProcess() <= most - made.length + KEPT);
    const left = (): number => made.filter((thread) => thread.usable).length;
    await eventually("all of them", () => left() <= KEPT);
    await noneBy();
    assert.equal(left(), KEPT);
  },
);

/** What taking threads comes to in a process with so many descriptors left. */
function takenWithDescriptors(free: number): string {
  const script = `
    import fs from "node:fs";
    const { takeThreads, giveBackThreads } = await import(${JSON.stringify(MODULE)});
    const full = [];
    try { for (;;) full.push(fs.openSync("/dev/null")); } catch {}
    for (const fd of full.splice(0, ${free})) fs.closeSync(fd);
    let said;
    try {
      const threads = await takeThreads({ kind: "verify" });
      await threads[0].ask({ kind: "verify-end" });
      giveBackThreads(threads);
      said = threads.length + " " + (await takeThreads({ kind: "verify" })).length;
    } catch (error) {
      said = [error.name, error.code, error.retryable, error.message.split(":")[0]].join(" ");
    }
    for (const fd of full) fs.closeSync(fd);
    console.log(said);`;
  const args = ["-c", 'ulimit -n 128 && exec "$@"', "sh", process.execPath, "--input-type=module", "-e", script];
  return execFileSync("sh", args, { encoding: "utf8" }).trim();
}

test("takeThreads returns one thread if the system starts no second one", () => {
  const said = Array.from({ length: 10 }, (_, i) => takenWithDescriptors(5 + i));
  assert.ok(said.includes("1 1") || said.includes("1 2"), said.join(", "));
});

test("takeThreads throws a retryable io error if the system starts no thread", () => {
  assert.equal(takenWithDescriptors(1), "CairnError io true no worker thread can be started");
});
