import { type ReadonlySignal, signal, useComputed, useSignal, useSignalEffect } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { Found } from "../parts/problem.tsx";

/** Loading of answers for views: cached by key, aborted when the view is left, and marked as late after a moment. */

/** Milliseconds of loading after which a progress bar is shown. */
const LATE_MS = 150;
const MOST_KEPT = 200;
const kept = new Map<string, unknown>();
/** Keys of cached answers that depend on the folder as it is now. */
const keptOfNow = new Set<string>();
const operations = signal(0);
/** Number of the page's own operations so far. */
export const ownOperations: ReadonlySignal<number> = operations;

export interface Resource<T> {
  value: ReadonlySignal<T | undefined>;
  problem: ReadonlySignal<Found | null>;
  /** True once loading takes so long that it should be shown. */
  isLate: ReadonlySignal<boolean>;
  /** True while `value` is the answer to another key than the present one, or older than the page's last operation. */
  isOld: boolean;
  reload(): void;
}

export function problemOf(error: unknown): Found {
  const { code = "internal", message, hint, details } = error as Partial<Found>;
  return { code, message: message ?? String(error), hint, details };
}

/** Makes views load again what depends on the folder as it is now, after an operation of the page changed the folder. */
export function noteOperation(): void {
  for (const key of keptOfNow) kept.delete(key);
  keptOfNow.clear();
  operations.value++;
}

/** Caches an answer for the next view that asks for the same key. */
export function keep(key: string, value: unknown): void {
  kept.delete(key);
  kept.set(key, value);
  const [oldest] = kept.keys();
  if (kept.size > MOST_KEPT) kept.delete(oldest!);
}

/**
 * Loads an answer, again whenever `key` changes; meanwhile shows the cached answer, if there is one. `isFixed`: a cached
 * answer is not loaded again, because it never changes. `isFresh`: no answer is cached; one that is loaded again stays
 * meanwhile. `isOfNow`: the answer depends on the folder as it is now, and is loaded again after each operation of the
 * page.
 */
export function useResource<T>(
  key: string,
  load: (signal: AbortSignal) => Promise<T>,
  { isFixed = false, isFresh = false, isOfNow = false } = {},
): Resource<T> {
  const asked = useSignal(key);
  const round = useSignal(0);
  const value = useSignal<T | undefined>(kept.get(key) as T | undefined);
  const answered = useSignal(key);
  const answeredAfter = useSignal(operations.peek());
  const problem = useSignal<Found | null>(null);
  const isLate = useSignal(false);
  useEffect(() => void (asked.value = key), [key]);
  useSignalEffect(() => {
    const wanted = asked.value;
    void round.value;
    const after = isOfNow ? operations.value : 0;
    if (kept.has(wanted)) {
      value.value = kept.get(wanted) as T;
      answered.value = wanted;
      answeredAfter.value = after;
      problem.value = null;
      if (isFixed) return;
    } else if (isFresh && answered.peek() !== wanted) value.value = undefined;
    const stopped = new AbortController();
    const late = setTimeout(() => (isLate.value = true), LATE_MS);
    void load(stopped.signal)
      .then(
        (found) => {
          if (isOfNow && after !== operations.peek()) return;
          if (!isFresh) keep(wanted, found);
          if (isOfNow) keptOfNow.add(wanted);
          if (stopped.signal.aborted) return;
          value.value = found;
          answered.value = wanted;
          answeredAfter.value = after;
          problem.value = null;
        },
        (error: unknown) => {
          if (!stopped.signal.aborted) problem.value = problemOf(error);
        },
      )
      .finally(() => {
        clearTimeout(late);
        if (!stopped.signal.aborted) isLate.value = false;
      });
    return () => {
      stopped.abort();
      clearTimeout(late);
      isLate.value = false;
    };
  });
  return {
    value,
    problem,
    isLate: useComputed(() => isLate.value),
    isOld: answered.value !== key || (isOfNow && answeredAfter.value !== operations.value),
    reload: () => round.value++,
  };
}
