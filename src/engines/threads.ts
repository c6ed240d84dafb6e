import os from "node:os";
import { CairnError, throwIfAborted, toCairnError } from "../errors.ts";
import { EngineThread } from "./engine-thread.ts";
import type { WorkKind } from "./thread-protocol.ts";

/**
 * The worker threads of this process: started when first wanted, kept for the next call, never keeping the process alive
 * by themselves. Each takes 15 MB and five descriptors, so there is a most of them, and who wants more waits in line.
 *
 * The rule that keeps them from waiting for each other: threads are taken last and given back first. Whoever has some asks
 * for no more, takes no lock and waits for no other call of this process before it has given them back; only a scan's
 * draft keeps one thread longer, which ends by itself. So those that wait always wait for work that goes on.
 */

/** Threads of one operation; no result depends on it. */
const THREADS = 2;
/** Two operations go on at once on any machine, on large ones four. */
const MOST = Math.max(2 * THREADS, Math.min(4 * THREADS, os.availableParallelism()));
/** How long threads beyond those of one operation are kept. */
const IDLE_MS = 2000;

const idle: EngineThread[] = [];
/** Threads that are in use, or are being started for it. */
let taken = 0;
const line: { count: number; go(): void }[] = [];
let ending: NodeJS.Timeout | undefined;

export interface ThreadsWanted {
  /** what they will be asked for */
  kind: WorkKind;
  /** default as many as any operation has; more than there may be are had when nobody else has any */
  count?: number | undefined;
  signal?: AbortSignal | undefined;
}

/**
 * Threads for one piece of work, in the order of asking; give them back. Where the system does not let all of them start
 * those that did are all, at least one. Throws `interrupted`, `io`.
 */
export async function takeThreads({ kind, count = THREADS, signal }: ThreadsWanted): Promise<EngineThread[]> {
  if (line.length > 0 || !isRoomFor(count)) await turn(count, signal);
  else taken += count;
  const threads: EngineThread[] = [];
  let failure: unknown;
  const wanted = Array.from({ length: count }, async () => {
    const thread = takeIdle() ?? new EngineThread(kind);
    await thread.started();
    threads.push(thread);
  });
  for (const result of await Promise.allSettled(wanted)) if (result.status === "rejected") failure = result.reason;
  release(count - threads.length);
  if (threads.length === 0) throw toCairnError(failure);
  return threads;
}

/** Runs work with threads of its own, which are given back whatever becomes of it. Throws what `takeThreads` and the work do. */
export async function withThreads<T>(wanted: ThreadsWanted, work: (threads: EngineThread[]) => Promise<T>): Promise<T> {
  const threads = await takeThreads(wanted);
  try {
    return await work(threads);
  } finally {
    giveBackThreads(threads);
  }
}

export function giveBackThreads(threads: readonly EngineThread[]): void {
  for (const thread of threads) {
    if (thread.usable) idle.push(thread);
    else thread.end();
  }
  release(threads.length);
  if (idle.length <= THREADS) return;
  ending ??= setTimeout(endIdle, IDLE_MS).unref();
  ending.refresh();
}

/** True when threads wait from an earlier operation. */
export function threadsAreWarm(): boolean {
  return idle.length >= THREADS;
}

/** Starts the threads, so that their start overlaps with other work, and has them load what a kind of work needs. */
export function warmThreads(kind: WorkKind): void {
  try {
    while (idle.length < THREADS && idle.length + taken < MOST) idle.push(new EngineThread(kind));
  } catch {
    // Whoever takes threads is told.
  }
}

/** One that still runs. */
function takeIdle(): EngineThread | undefined {
  let thread = idle.pop();
  while (thread?.usable === false) thread = idle.pop();
  return thread;
}

function isRoomFor(count: number): boolean {
  return taken === 0 || taken + count <= MOST;
}

async function turn(count: number, signal: AbortSignal | undefined): Promise<void> {
  throwIfAborted(signal);
  await new Promise<void>((resolve, reject) => {
    const waiting = { count, go: resolve };
    line.push(waiting);
    const stop = (): void => {
      const place = line.indexOf(waiting);
      // Its turn has come already.
      if (place < 0) return;
      line.splice(place, 1);
      reject(new CairnError("interrupted", "stopped by the caller", { cause: signal?.reason }));
      release(0);
    };
    signal?.addEventListener("abort", stop, { once: true });
    waiting.go = () => {
      signal?.removeEventListener("abort", stop);
      resolve();
    };
  });
}

/** Lets go of so many, and those first in line have their turn. */
function release(count: number): void {
  taken -= count;
  while (line.length > 0 && isRoomFor(line[0]!.count)) {
    const next = line.shift()!;
    taken += next.count;
    next.go();
  }
}

function endIdle(): void {
  ending = undefined;
  while (idle.length > THREADS) idle.pop()!.end();
}

/** The values of settled calls; throws what failed first in earnest, rather than what was stopped because of it. */
export function firstFailure<T>(settled: readonly PromiseSettledResult<T>[]): T[] {
  const reasons = settled.flatMap((result) => (result.status === "rejected" ? [result.reason as unknown] : []));
  if (reasons.length > 0)
    throw reasons.find((reason) => !(reason instanceof CairnError && reason.code === "interrupted")) ?? reasons[0];
  return settled.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
}
