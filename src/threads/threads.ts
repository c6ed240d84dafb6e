import os from "node:os";
import { CairnError, throwIfAborted, toCairnError } from "../errors.ts";
import { type GrantedThread, type KindOfWork, type Thread, type Work, WorkerThread } from "./worker-thread.ts";

/**
 * Keeps the worker threads of this process: started when first wanted, never keeping the process alive. There is a most
 * of them, and who wants more waits in line; nothing local ever waits for another machine. Rules that keep them from
 * waiting for each other:
 * - Threads are taken last and given back first: whoever has some asks for no more, takes no lock and waits for no
 * other call before.
 * - Only a scan's draft keeps one thread longer, which ends by itself.
 */

/** Threads of one operation; no result depends on it. */
const THREADS = 2;
/** So many of each line: two operations go on at once on any machine, on large ones four. */
const MOST = Math.max(2 * THREADS, Math.min(4 * THREADS, os.availableParallelism()));
/** Milliseconds for which threads beyond those of one operation are kept. */
const IDLE_MS = 2000;

const idle: WorkerThread[] = [];
let ending: NodeJS.Timeout | undefined;

export interface ThreadsWanted<W extends Work> {
  /** what they will be asked for */
  kind: KindOfWork<W>;
  /** at most so many; default as many as any operation has */
  count?: number | undefined;
  signal?: AbortSignal | undefined;
}

/** A line of those who want threads, in the order of asking, and how many are had. */
class Line {
  readonly #waiting: { readonly count: number; go(granted: number): void }[] = [];
  #taken = 0;

  /** Threads that are in use, or are being started for it. */
  get taken(): number {
    return this.#taken;
  }

  async take<W extends Work>({ kind, count = THREADS, signal }: ThreadsWanted<W>): Promise<Thread<W>[]> {
    const granted = await this.#turn(count, signal);
    const threads: WorkerThread[] = [];
    let failure: unknown;
    const wanted = Array.from({ length: granted }, async () => {
      const thread = takeIdle() ?? new WorkerThread(kind);
      thread.work = kind;
      await thread.started();
      threads.push(thread);
    });
    for (const result of await Promise.allSettled(wanted)) if (result.status === "rejected") failure = result.reason;
    this.#release(granted - threads.length);
    if (threads.length === 0) throw toCairnError(failure);
    // Whoever has them hears only of what is stopped from then on.
    if (signal?.aborted === true) this.giveBack(threads);
    throwIfAborted(signal);
    return threads as GrantedThread[] as Thread<W>[];
  }

  giveBack(threads: readonly GrantedThread[]): void {
    for (const thread of threads as readonly WorkerThread[]) {
      if (thread.usable) idle.push(thread);
      else thread.end();
    }
    this.#release(threads.length);
    if (idle.length <= THREADS) return;
    ending ??= setTimeout(endIdle, IDLE_MS).unref();
    ending.refresh();
  }

  async #turn(count: number, signal: AbortSignal | undefined): Promise<number> {
    throwIfAborted(signal);
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    const place = { count, go: resolve };
    this.#waiting.push(place);
    const stop = (): void => {
      const at = this.#waiting.indexOf(place);
      // Its turn has come already.
      if (at < 0) return;
      this.#waiting.splice(at, 1);
      reject(new CairnError("interrupted", "stopped by the caller", { cause: signal?.reason }));
      this.#next();
    };
    signal?.addEventListener("abort", stop, { once: true });
    this.#next();
    return promise.finally(() => signal?.removeEventListener("abort", stop));
  }

  #release(count: number): void {
    this.#taken -= count;
    this.#next();
  }

  /**
   * Gives threads to the next in line: it waits for no more than others have, and gets of the rest what is free then.
   */
  #next(): void {
    for (let next = this.#waiting[0]; next !== undefined; next = this.#waiting[0]) {
      const free = MOST - this.#taken;
      if (free < Math.min(next.count, THREADS)) return;
      this.#waiting.shift();
      const granted = Math.min(next.count, free);
      this.#taken += granted;
      next.go(granted);
    }
  }
}

/** Line of work on this machine: work that waits for another machine may take hours, so it has a line of its own. */
const near = new Line();
const far = new Line();

/**
 * Runs work with threads of its own, which are given back whatever becomes of it. `isFar`: it waits for another machine
 * while it has them. Throws what `takeThreads` and the work do.
 */
export async function withThreads<W extends Work, T>(
  { isFar = false, ...wanted }: ThreadsWanted<W> & { isFar?: boolean },
  work: (threads: Thread<W>[]) => Promise<T>,
): Promise<T> {
  const line = isFar ? far : near;
  const threads = await line.take(wanted);
  try {
    return await work(threads);
  } finally {
    line.giveBack(threads);
  }
}

/**
 * Threads for one piece of work that waits for no other machine, in the order of asking; give them back. Where the system
 * does not let all of them start those that did are all, at least one. Throws `interrupted`, `io`.
 */
export async function takeThreads<W extends Work>(wanted: ThreadsWanted<W>): Promise<Thread<W>[]> {
  return near.take(wanted);
}

export function giveBackThreads(threads: readonly GrantedThread[]): void {
  near.giveBack(threads);
}

/** True when threads wait from an earlier operation. */
export function threadsAreWarm(): boolean {
  return idle.length >= THREADS;
}

/** Starts the threads, so that their start overlaps with other work, and has them load what a kind of work needs. */
export function warmThreads(kind: string): void {
  try {
    while (idle.length < THREADS && idle.length + near.taken < MOST) idle.push(new WorkerThread(kind));
  } catch {
    // Whoever takes threads is told.
  }
}

/** One that still runs. */
function takeIdle(): WorkerThread | undefined {
  let thread = idle.pop();
  while (thread?.usable === false) thread = idle.pop();
  return thread;
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
