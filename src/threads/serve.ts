import { parentPort, workerData } from "node:worker_threads";
import { adviceOf, type ErrorCode, type Hint, toCairnError } from "../errors.ts";

/** Start data of a thread: the folder of the compile cache, and the kind of work whose code it loads at once. */
export interface ThreadStart {
  compileCache: string | null;
  work: string;
}

/** A request for a kind of work. */
export interface ThreadRequest {
  work: string;
  request: unknown;
}

/** A message of a thread: ready for requests (once), an event during work, or the end of a request. */
export type ThreadMessage = { ready: true } | { event: unknown } | { reply: unknown } | { failure: Failure };

/** An error in the form in which threads send it. */
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

/** By name, a function that loads the code of a kind of work. `tell` posts an event. */
export type KindsOfWork = Readonly<Record<string, () => Promise<new (tell: (event: unknown) => void) => Runner>>>;

/** Milliseconds. Longer work has run, and so compiled, most of its code. */
const LONG_MS = 20;

/**
 * Answers the requests to a worker thread, one after the other. Loads each kind of work at its first request. Calls
 * `onWorked` after each request that took long.
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
