import { setImmediate } from "node:timers/promises";
import { throwIfAborted } from "./errors.ts";

/** Milliseconds that this thread works before it lets signals and other callers in. */
const SLICE_MS = 25;
/** Milliseconds between two reports of progress. */
const PROGRESS_MS = 100;

/** A pause to await between two pieces of work; returns at once until a slice of time is over. Throws once aborted. */
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

/** Collects the items of a walk, with pauses. */
export async function collectPaced<T>(items: Iterable<T>, pace: Pacer): Promise<T[]> {
  const all: T[] = [];
  for (const item of items) {
    all.push(item);
    await pace();
  }
  return all;
}

/** Passes on some of a callback's calls: one per interval, and the last. Does nothing without a callback. */
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

/** The longest time between two reports without a change, so that the reader sees that the work goes on. */
const STILL_MS = 1000;

/**
 * Calls `report` with the result of `look`: at once, then about ten times a second while it changes, else every second.
 * Returns a function that stops this after one more report.
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
