import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { giveBackThreads, takeThreads } from "./threads.ts";

const MODULE = new URL("threads.ts", import.meta.url).href;
const IDLE_MS = 2000;

const verify = { kind: "verify" } as const;

function threadsOfProcess(): number {
  return Number(/^Threads:\s+(\d+)$/mu.exec(fs.readFileSync("/proc/self/status", "utf8"))![1]);
}

test("threads are had in the order of asking, and never more than a few at once, when many ask", async () => {
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
    order.slice(4),
    Array.from({ length: 20 }, (_, i) => i + 4),
  );
});

test("who wants more than there may be has them once nobody else has any", async () => {
  const first = await takeThreads(verify);
  const many = takeThreads({ ...verify, count: 12 });
  const last = takeThreads(verify);
  assert.equal(await Promise.race([many, last, sleep(50, "none")]), "none");
  giveBackThreads(first);
  const held = await many;
  assert.equal(held.length, 12);
  assert.equal(await Promise.race([last, sleep(50, "none")]), "none");
  giveBackThreads(held);
  giveBackThreads(await last);
});

test("who waits in line is stopped at once, and those behind it are not held up, when its caller stops", async () => {
  const first = await takeThreads(verify);
  const stopper = new AbortController();
  const many = takeThreads({ ...verify, count: 12, signal: stopper.signal });
  const behind = takeThreads(verify);
  const started = Date.now();
  stopper.abort();
  await assert.rejects(many, { name: "CairnError", code: "interrupted" });
  assert.ok(Date.now() - started < 100);
  giveBackThreads(await behind);
  giveBackThreads(first);
});

test(
  "threads beyond those of one operation end when nobody has wanted them for a while",
  { skip: process.platform === "linux" ? false : "only Linux says how many threads a process has" },
  async () => {
    await sleep(IDLE_MS + 500);
    const few = threadsOfProcess();
    giveBackThreads(await takeThreads({ ...verify, count: 10 }));
    assert.ok(threadsOfProcess() >= few + 8);
    await sleep(IDLE_MS + 500);
    assert.equal(threadsOfProcess(), few);
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

test("one thread does when the system lets no second one start", () => {
  const said = Array.from({ length: 10 }, (_, i) => takenWithDescriptors(5 + i));
  assert.ok(said.includes("1 1") || said.includes("1 2"), said.join(", "));
});

test("it is said that no thread can be started when the system lets none", () => {
  assert.equal(takenWithDescriptors(1), "CairnError io true no worker thread can be started");
});
