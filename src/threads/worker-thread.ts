import { getCompileCacheDir } from "node:module";
import path from "node:path";
import { Worker } from "node:worker_threads";
import { CairnError, toCairnError } from "../errors.ts";
import type { ThreadMessage, ThreadRequest, ThreadStart } from "./serve.ts";

/**
 * A kind of work that threads do: what they are asked, what they answer to each request by its kind, and what they tell
 * while they work.
 */
export interface Work {
  readonly requests: { readonly kind: string };
  readonly replies: object;
  readonly events: unknown;
}

/** The name that a kind of work is registered by in `src/thread-main.ts`. */
export type KindOfWork<W extends Work> = string & { readonly of?: W };

type ReplyTo<W extends Work, R extends W["requests"]> = W["replies"][R["kind"] & keyof W["replies"]];

/** A thread that somebody has. */
export interface GrantedThread {
  /** False for one that has ended, or whose reply is still to come. */
  readonly usable: boolean;
}

/** A thread as the kind of work sees it that has it. */
export interface Thread<W extends Work> extends GrantedThread {
  onEvent: ((event: W["events"]) => void) | null;
  ask<R extends W["requests"]>(request: R): Promise<ReplyTo<W, R>>;
}

/** The folder that this process keeps compiled code in; threads do not take that over by themselves. */
function compileCacheFolder(): string | null {
  const folder = getCompileCacheDir();
  return folder === undefined ? null : path.dirname(folder);
}

interface Waiting {
  resolve(reply: unknown): void;
  reject(error: unknown): void;
}

/** One worker thread: a request at a time, then its reply. It keeps no process from ending but while it is asked. */
export class WorkerThread implements GrantedThread {
  readonly #worker: Worker;
  readonly #ready = Promise.withResolvers<void>();
  #isReady = false;
  #waiting: Waiting | null = null;
  #end: CairnError | null = null;
  /** Work that it is asked for now. */
  work: string;
  onEvent: ((event: unknown) => void) | null = null;

  /** `work`: what it will be asked for first, whose code it loads by itself. Throws what `started` does. */
  constructor(work: string) {
    this.work = work;
    try {
      this.#worker = this.#start(work);
    } catch (error) {
      throw notStarted(error);
    }
    // Told to whoever takes it.
    this.#ready.promise.catch(() => undefined);
  }

  #start(work: string): Worker {
    const worker = new Worker(new URL("../thread-worker.ts", import.meta.url), {
      resourceLimits: { maxYoungGenerationSizeMb: 3 },
      // What Node was started with need not be possible here, as `--input-type` is not.
      execArgv: [],
      workerData: { compileCache: compileCacheFolder(), work } satisfies ThreadStart,
    });
    worker.on("message", (message: ThreadMessage) => this.#message(message));
    worker.on("error", (error) => this.#lost(toCairnError(error, "a worker thread")));
    worker.on("exit", () => this.#lost(new CairnError("internal", "a worker thread ended by itself")));
    // Listening for messages holds the process, so this comes after it.
    worker.unref();
    return worker;
  }

  /** Resolves once it can be asked. Throws `io` when the system has no thread to give, or no descriptors for one. */
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
    // Replies have no numbers: the next one is taken for that of whoever asked last.
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
  // No thread would ever start.
  if (failure.code === "unsupported") return failure;
  return new CairnError("io", `no worker thread can be started: ${failure.message}`, {
    hint: "let the process have more open files and threads (`ulimit -n`, `ulimit -u`), or have it do less at once",
    cause: error,
  });
}
