import { getCompileCacheDir } from "node:module";
import path from "node:path";
import { Worker } from "node:worker_threads";
import { CairnError } from "../errors.ts";
import { TableFull } from "../fs/scan-table.ts";
import type {
  EngineEvent,
  EngineReplies,
  EngineRequest,
  ThreadMessage,
  ThreadStart,
  WorkKind,
} from "./thread-protocol.ts";

/**
 * The worker threads of this process: started when first wanted, kept for the next call, never keeping the
 * process alive by themselves.
 */

/** Threads of one operation; no result depends on it. */
const THREADS = 2;

const idle: EngineThread[] = [];

export function takeThreads(count = THREADS): EngineThread[] {
  return Array.from({ length: count }, () => idle.pop() ?? new EngineThread());
}

export function giveBackThreads(threads: readonly EngineThread[]): void {
  for (const thread of threads) {
    if (thread.usable) idle.push(thread);
    else thread.end();
  }
}

/** True when threads wait from an earlier operation. */
export function threadsAreWarm(): boolean {
  return idle.length >= THREADS;
}

/** Starts the threads, so that their start overlaps with other work, and has them load what a kind of work needs. */
export function warmThreads(kind: WorkKind): void {
  while (idle.length < THREADS) idle.push(new EngineThread(kind));
}

/** The folder that this process keeps compiled code in; threads do not take that over by themselves. */
function compileCacheFolder(): string | null {
  const folder = getCompileCacheDir();
  return folder === undefined ? null : path.dirname(folder);
}

interface Waiting {
  resolve(reply: never): void;
  reject(error: unknown): void;
}

/** One worker thread: a request at a time, then its reply. */
export class EngineThread {
  readonly #worker: Worker;
  #waiting: Waiting | null = null;
  usable = true;
  onEvent: ((event: EngineEvent) => void) | null = null;

  /** `kind`: the work that it will be asked for first */
  constructor(kind: WorkKind | null = null) {
    this.#worker = new Worker(new URL("./engine-worker.ts", import.meta.url), {
      resourceLimits: { maxYoungGenerationSizeMb: 3 },
      // What Node was started with need not be possible here, as `--input-type` is not.
      execArgv: [],
      workerData: { compileCache: compileCacheFolder(), kind } satisfies ThreadStart,
    });
    this.#worker.on("message", (message: ThreadMessage) => this.#message(message));
    this.#worker.on("error", (error) => this.#lost(error));
    this.#worker.on("exit", () => this.#lost(new CairnError("internal", "a worker thread ended by itself")));
    // Listening for messages holds the process, so this comes after it.
    this.#worker.unref();
  }

  async ask<Request extends EngineRequest>(request: Request): Promise<EngineReplies<Request>> {
    if (!this.usable) throw new CairnError("internal", "the worker thread has ended");
    this.#worker.ref();
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve: resolve as (reply: never) => void, reject };
      this.#worker.postMessage(request);
    });
  }

  #message(message: ThreadMessage): void {
    if ("event" in message) return this.onEvent?.(message.event);
    this.#worker.unref();
    const waiting = this.#waiting;
    this.#waiting = null;
    if ("reply" in message) return waiting?.resolve(message.reply as never);
    const { code, message: text, hint, details, full } = message.failure;
    waiting?.reject(
      full
        ? new TableFull()
        : new CairnError(code, text, {
            ...(hint === undefined ? {} : { hint }),
            ...(details === undefined ? {} : { details }),
          }),
    );
  }

  #lost(error: unknown): void {
    this.usable = false;
    this.#waiting?.reject(error);
    this.#waiting = null;
  }

  end(): void {
    void this.#worker.terminate();
  }
}

/** The values of settled calls; throws what failed first in earnest, rather than what was stopped because of it. */
export function firstFailure<T>(settled: readonly PromiseSettledResult<T>[]): T[] {
  const reasons = settled.flatMap((result) => (result.status === "rejected" ? [result.reason as unknown] : []));
  if (reasons.length > 0)
    throw reasons.find((reason) => !(reason instanceof CairnError && reason.code === "interrupted")) ?? reasons[0];
  return settled.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
}
