import { AsyncLocalStorage } from "node:async_hooks";
import os from "node:os";
import { CairnError, throwIfAborted, toCairnError } from "../errors.ts";
import { type GrantedThread, type KindOfWork, type Thread, type Work, WorkerThread } from "./worker-thread.ts";

export type { Thread } from "./worker-thread.ts";

/**
 * Keeps the worker threads of this process. They start on demand and never keep the process alive. Their number is
 * limited; callers wait in line. Local work never waits for work that waits for another machine. Rules against deadlocks:
 *
 * - Take threads last and give them back first: while you have some, take no more, take no lock and await no other
 *   call.
 * - Only a scan's draft keeps one thread longer; the draft ends by itself.
 * - Only a verification asks for a second thread while it has one. The first needs no other to end, and then the
 *   question ends too.
 */

/** Number of threads of one operation; no result depends on it. */
const THREADS = 2;
/** Number of threads of an operation while the main thread works too: a thread without a core only takes memory. */
export const THREADS_BESIDE = Math.max(1, Math.min(THREADS, os.availableParallelism() - 1));
/** Threads in each line: two operations run at the same time on any machine, four on large ones. */
const MOST = Math.max(2 * THREADS, Math.min(4 * THREADS, os.availableParallelism()));
/** Milliseconds after which idle threads end, except `THREADS` of them. */
const IDLE_MS = 2000;

const idle: WorkerThread[] = [];
let ending: NodeJS.Timeout | undefined;

export interface ThreadsWanted<W extends Work> {
  /** the kind of work */
  kind: KindOfWork<W>;
  /** the most threads; default: as for any operation */
  count?: number | undefined;
  signal?: AbortSignal | undefined;
}

/** Callers that wait for threads, in the order of their calls, and the number of threads in use. */
class Line {
  readonly #waiting: { readonly count: number; go(granted: number): void }[] = [];
  #taken = 0;

  /** Number of threads in use, or being started. */
  get taken(): number {
    return this.#taken;
  }

  async take<W extends Work>({
    kind,
    count = chosenJobs() ?? THREADS,
    signal,
  }: ThreadsWanted<W>): Promise<Thread<W>[]> {
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
    // The work hears only of aborts that come after this line.
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
      // The caller has already got threads.
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
   * Gives threads to the next callers in line. A caller waits for at most `THREADS` free threads, and gets up to
   * `count` if more are free.
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

const chosen = new AsyncLocalStorage<number>();

/** Runs a call in which each operation takes `jobs` threads and transfers as many packs at once; undefined: as outside. */
export async function withJobs<T>(jobs: number | undefined, call: () => Promise<T>): Promise<T> {
  return jobs === undefined ? call() : chosen.run(jobs, call);
}

/** The number that the running call was given by `withJobs()`. */
export function chosenJobs(): number | undefined {
  return chosen.getStore();
}

/** The line of local work. Work that waits for another machine may take hours, so it has its own line. */
const near = new Line();
const far = new Line();

/**
 * Runs work with threads, which are always given back. `isFar`: the work waits for another machine. Throws errors of
 * `takeThreads` and of the work.
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
 * Returns threads for local work, in the order of the calls; give them back. If the system starts only some of them,
 * returns these, at least one. Throws `interrupted`, `io`.
 */
export async function takeThreads<W extends Work>(wanted: ThreadsWanted<W>): Promise<Thread<W>[]> {
  return near.take(wanted);
}

export function giveBackThreads(threads: readonly GrantedThread[]): void {
  near.giveBack(threads);
}

/** True if threads of an earlier operation are idle. */
export function threadsAreWarm(count = THREADS): boolean {
  return idle.length >= count;
}

/** Starts the threads early, so that they load the code of a kind of work while other work goes on. */
export function warmThreads(kind: string, count = THREADS): void {
  try {
    while (idle.length < count && idle.length + near.taken < MOST) idle.push(new WorkerThread(kind));
  } catch {
    // The caller of `takeThreads` gets the error.
  }
}

/** Returns an idle thread that still runs. */
function takeIdle(): WorkerThread | undefined {
  let thread = idle.pop();
  while (thread?.usable === false) thread = idle.pop();
  return thread;
}

function endIdle(): void {
  ending = undefined;
  while (idle.length > THREADS) idle.pop()!.end();
}

/**
 * Returns the values of settled calls. If some failed, throws the first error other than `interrupted`, which may only
 * be a consequence.
 */
export function firstFailure<T>(settled: readonly PromiseSettledResult<T>[]): T[] {
  const reasons = settled.flatMap((result) => (result.status === "rejected" ? [result.reason as unknown] : []));
  if (reasons.length > 0)
    throw reasons.find((reason) => !(reason instanceof CairnError && reason.code === "interrupted")) ?? reasons[0];
  return settled.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
}
