import { parentPort, type Worker } from "node:worker_threads";
import { CairnError, toCairnError } from "../errors.ts";
import { type Failure, failureOf } from "./serve.ts";

/** Functions that a dedicated worker thread runs, any number at a time. Inputs and results are cloned. */
export type ThreadFunctions = Readonly<Record<string, (input: never, signal: AbortSignal) => Promise<unknown>>>;

type Question = { number: number; name: string; input: unknown } | { number: number; stop: true };
type Answer = { number: number } & ({ value: unknown } | { failure: Failure });

/**
 * Calls functions in a worker thread, which the first call starts. The thread keeps the process alive only during
 * calls.
 */
export class ThreadCalls<F extends ThreadFunctions> {
  readonly #start: () => Worker;
  readonly #waiting = new Map<number, PromiseWithResolvers<unknown>>();
  #worker: Worker | null = null;
  #asked = 0;

  constructor(start: () => Worker) {
    this.#start = start;
  }

  /**
   * Throws the function's error, or the reason why the thread ended. An abort is passed to the function, whose answer
   * is awaited.
   */
  async call<N extends keyof F & string>(
    name: N,
    input: Parameters<F[N]>[0],
    signal?: AbortSignal,
  ): Promise<Awaited<ReturnType<F[N]>>> {
    const worker = (this.#worker ??= this.#started());
    const number = this.#asked++;
    const answer = Promise.withResolvers<unknown>();
    this.#waiting.set(number, answer);
    worker.ref();
    const post = (question: Question): void => worker.postMessage(question);
    const stop = (): void => post({ number, stop: true });
    try {
      post({ number, name, input });
      signal?.addEventListener("abort", stop, { once: true });
      if (signal?.aborted === true) stop();
      return (await answer.promise) as Awaited<ReturnType<F[N]>>;
    } finally {
      signal?.removeEventListener("abort", stop);
      this.#waiting.delete(number);
      if (this.#waiting.size === 0) worker.unref();
    }
  }

  /** Ends the thread after all calls are answered. */
  async end(): Promise<void> {
    await Promise.allSettled([...this.#waiting.values()].map(async ({ promise }) => promise));
    await this.#worker?.terminate();
  }

  #started(): Worker {
    const worker = this.#start();
    worker.on("message", ({ number, ...answer }: Answer) => {
      const waiting = this.#waiting.get(number);
      if ("value" in answer) return waiting?.resolve(answer.value);
      const { code, message, hint, details } = answer.failure;
      waiting?.reject(new CairnError(code, message, { hint, details }));
    });
    const lose = (error: Error): void => {
      if (this.#worker !== worker) return;
      // The next call starts a new thread.
      this.#worker = null;
      for (const { reject } of this.#waiting.values()) reject(error);
    };
    worker.on("error", (error) => lose(toCairnError(error, "a worker thread")));
    worker.on("exit", () => lose(new CairnError("internal", "a worker thread ended by itself")));
    return worker;
  }
}

/** Answers the calls of {@link ThreadCalls}. Runs in the worker thread. */
export function answerCalls(functions: ThreadFunctions): void {
  const port = parentPort!;
  const post = (answer: Answer): void => port.postMessage(answer);
  const stops = new Map<number, AbortController>();
  const run = async (number: number, name: string, input: unknown): Promise<void> => {
    const stop = new AbortController();
    stops.set(number, stop);
    try {
      post({ number, value: await functions[name]!(input as never, stop.signal) });
    } catch (error) {
      post({ number, failure: failureOf(error) });
    } finally {
      stops.delete(number);
    }
  };
  port.on("message", (question: Question) => {
    if ("stop" in question) stops.get(question.number)?.abort();
    else void run(question.number, question.name, question.input);
  });
}
