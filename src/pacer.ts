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

/** Longest time between two reports of what stands still: whoever waits sees that it goes on. */
const STILL_MS = 1000;

/**
 * Tells a callback what `look` returns: at once, then about ten times a second while that changes, else every second. Returns what
 * ends it, which tells it once more.
 */
export function keepTelling<T>(report: ((value: T) => void) | undefined, look: () => T): () => void {
  if (report === undefined) return () => undefined;
  let [before, at] = ["", 0];
  const tell = (): void => {
    const value = look();
    const text = JSON.stringify(value);
    if (text === before && performance.now() - at < STILL_MS) return;
    [before, at] = [text, performance.now()];
    report(value);
  };
  tell();
  const timer = setInterval(tell, PROGRESS_MS);
  return () => {
    clearInterval(timer);
    tell();
  };
}
