import { setImmediate } from "node:timers/promises";
import { throwIfAborted } from "./errors.ts";

/** Time that this thread works before it lets signals and other callers in. */
const SLICE_MS = 25;
/** Shortest time between two reports of progress. */
const PROGRESS_MS = 100;

/** A pause to be awaited between two pieces of work: it takes one only when a slice of time is over. Throws once aborted. */
export type Pacer = () => Promise<void>;

export function newPacer(signal: AbortSignal | undefined): Pacer {
  let since = performance.now();
  return async () => {
    throwIfAborted(signal);
    if (performance.now() - since < SLICE_MS) return;
    await setImmediate();
    since = performance.now();
    throwIfAborted(signal);
  };
}

/** Collects what a walk yields, pausing on the way. */
export async function collectPaced<T>(items: Iterable<T>, pace: Pacer): Promise<T[]> {
  const all: T[] = [];
  for (const item of items) {
    all.push(item);
    await pace();
  }
  return all;
}

/** Passes on what a callback is told now and then, and what says that all is done; nothing without a callback. */
export function throttled<T extends { done: number; total?: number }>(
  report: ((value: T) => void) | undefined,
): (value: T) => void {
  let last = 0;
  return (value) => {
    const now = performance.now();
    if (report === undefined || (now - last < PROGRESS_MS && value.done !== value.total)) return;
    last = now;
    report(value);
  };
}
