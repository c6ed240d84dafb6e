import { parentPort, workerData } from "node:worker_threads";
import { adviceOf, type ErrorCode, type Hint, toCairnError } from "../errors.ts";

/**
 * Data that a thread is started with: the folder of compiled code, and the work whose code it loads without being
 * asked.
 */
export interface ThreadStart {
  compileCache: string | null;
  work: string;
}

/** A request of a kind of work. */
export interface ThreadRequest {
  work: string;
  request: unknown;
}

/** A message of a thread: that it can be asked, once; an event while it works; or the end of a request. */
export type ThreadMessage = { ready: true } | { event: unknown } | { reply: unknown } | { failure: Failure };

/** An error as one thread tells it to another. */
export interface Failure {
  code: ErrorCode;
  message: string;
  hint: Hint | undefined;
  details: Record<string, unknown> | undefined;
}

export function failureOf(error: unknown): Failure {
  const known = toCairnError(error);
  const { code, message, details } = known;
  return { code, message, hint: adviceOf(known), details };
}

interface Runner {
  handle(request: never): unknown;
}

/** Kinds of work by name: what loads their code. `tell` posts an event. */
export type KindsOfWork = Readonly<Record<string, () => Promise<new (tell: (event: unknown) => void) => Runner>>>;

/** Work that takes so long has run most of what such work runs, milliseconds. */
const LONG_MS = 20;

/**
 * Answers what a worker thread is asked: a request at a time, then its reply. Each kind of work is loaded when it is first
 * asked for. `onWorked`: called after each piece of work that was not short.
 */
export async function serve(kinds: KindsOfWork, onWorked: () => void): Promise<void> {
  const port = parentPort;
  if (port === null) return;
  const post = (message: ThreadMessage): void => port.postMessage(message);
  const runners = new Map<string, Promise<Runner>>();
  const runnerOf = async (work: string): Promise<Runner> => {
    const load = async (): Promise<Runner> => new (await kinds[work]!())((event) => post({ event }));
    let runner = runners.get(work);
    if (runner === undefined) runners.set(work, (runner = load()));
    return runner;
  };
  const answer = async ({ work, request }: ThreadRequest): Promise<void> => {
    const started = performance.now();
    try {
      const runner = await runnerOf(work);
      post({ reply: runner.handle(request as never) });
    } catch (error) {
      post({ failure: failureOf(error) });
    }
    if (performance.now() - started >= LONG_MS) onWorked();
  };
  await runnerOf((workerData as ThreadStart).work);
  post({ ready: true });
  port.on("message", (request: ThreadRequest) => void answer(request));
}
