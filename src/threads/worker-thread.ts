import { getCompileCacheDir } from "node:module";
import path from "node:path";
import { Worker } from "node:worker_threads";
import { CairnError, toCairnError } from "../errors.ts";
import type { ThreadMessage, ThreadRequest, ThreadStart } from "./serve.ts";

/** A kind of work for threads: requests, replies by the kind of request, and events during the work. */
export interface Work {
  readonly requests: { readonly kind: string };
  readonly replies: object;
  readonly events: unknown;
}

/** The name of a kind of work, registered in `src/thread-main.ts`. */
export type KindOfWork<W extends Work> = string & { readonly of?: W };

type ReplyTo<W extends Work, R extends W["requests"]> = W["replies"][R["kind"] & keyof W["replies"]];

/** A thread that a caller has taken. */
export interface GrantedThread {
  /** False if the thread has ended, or has not answered yet. */
  readonly usable: boolean;
}

/** A thread with the types of its kind of work. */
export interface Thread<W extends Work> extends GrantedThread {
  onEvent: ((event: W["events"]) => void) | null;
  ask<R extends W["requests"]>(request: R): Promise<ReplyTo<W, R>>;
}

/** The folder of this process's compile cache. Threads do not inherit it. */
function compileCacheFolder(): string | null {
  const folder = getCompileCacheDir();
  return folder === undefined ? null : path.dirname(folder);
}

interface Waiting {
  resolve(reply: unknown): void;
  reject(error: unknown): void;
}

/** One worker thread, which answers one request at a time and keeps the process alive only during a request. */
export class WorkerThread implements GrantedThread {
  readonly #worker: Worker;
  readonly #ready = Promise.withResolvers<void>();
  #isReady = false;
  #waiting: Waiting | null = null;
  #end: CairnError | null = null;
  /** The current kind of work. */
  work: string;
  onEvent: ((event: unknown) => void) | null = null;

  /** `work`: the first kind of work, whose code the thread loads at once. Throws as `started` does. */
  constructor(work: string) {
    this.work = work;
    try {
      this.#worker = this.#start(work);
    } catch (error) {
      throw notStarted(error);
    }
    // `started` passes the error to the caller.
    this.#ready.promise.catch(() => undefined);
  }

  #start(work: string): Worker {
    const worker = new Worker(new URL("../thread-worker.ts", import.meta.url), {
      resourceLimits: { maxYoungGenerationSizeMb: 3 },
      // Options of this Node process may be invalid for a thread, e.g. `--input-type`.
      execArgv: [],
      workerData: { compileCache: compileCacheFolder(), work } satisfies ThreadStart,
    });
    worker.on("message", (message: ThreadMessage) => this.#message(message));
    worker.on("error", (error) => this.#lost(toCairnError(error, "a worker thread")));
    worker.on("exit", () => this.#lost(new CairnError("internal", "a worker thread ended by itself")));
    // Adding a message listener references the thread, so unref comes last.
    worker.unref();
    return worker;
  }

  /** Resolves once the thread is ready. Throws `io` if the system has no threads or file descriptors left. */
  async started(): Promise<void> {
    if (this.#isReady) return;
    this.#worker.ref();
    await this.#ready.promise.finally(() => this.#worker.unref());
  }

  get usable(): boolean {
    return this.#end === null && this.#waiting === null;
  }

  async ask(request: { readonly kind: string }): Promise<unknown> {
    if (this.#end !== null) throw this.#end;
    // Replies have no numbers: with two requests, the first reply would go to the second caller.
    if (this.#waiting !== null)
      throw new CairnError("internal", "a worker thread got a request before it had answered the previous one");
    this.#worker.postMessage({ work: this.work, request } satisfies ThreadRequest);
    this.#worker.ref();
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
    });
  }

  #message(message: ThreadMessage): void {
    if ("event" in message) return this.onEvent?.(message.event);
    if ("ready" in message) {
      this.#isReady = true;
      return this.#ready.resolve();
    }
    this.#worker.unref();
    const waiting = this.#waiting;
    this.#waiting = null;
    if ("reply" in message) return waiting?.resolve(message.reply);
    const { code, message: text, hint, details } = message.failure;
    waiting?.reject(new CairnError(code, text, { hint, details }));
  }

  #lost(error: CairnError): void {
    this.#end ??= error;
    this.#ready.reject(notStarted(error));
    this.#waiting?.reject(error);
    this.#waiting = null;
  }

  end(): void {
    void this.#worker.terminate();
  }
}

function notStarted(error: unknown): CairnError {
  const failure = toCairnError(error);
  // No other thread could start either.
  if (failure.code === "unsupported") return failure;
  return new CairnError("io", `no worker thread can be started: ${failure.message}`, {
    hint: "let the process have more open files and threads (`ulimit -n`, `ulimit -u`), or have it do less at once",
    cause: error,
  });
}
