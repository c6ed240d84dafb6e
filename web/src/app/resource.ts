import { type ReadonlySignal, signal, useComputed, useSignal, useSignalEffect } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { Found } from "../parts/problem.tsx";

/** Loading of answers for views: cached by key, aborted when the view is left, and marked as late after a moment. */

/** Milliseconds of loading after which a progress bar is shown. */
const LATE_MS = 150;
/** Milliseconds of loading after which the former answer no longer counts. */
export const SILENT_MS = 30_000;
const MOST_KEPT = 200;
const kept = new Map<string, unknown>();
/** Keys of cached answers that depend on the folder as it is now. */
const keptOfNow = new Set<string>();
/** False while the server does not answer. */
export const isConnected = signal(true);
/** True if a part of the page's program could not be loaded. Browsers and Vite keep such a failure, so the page must start again. */
export const isPartMissing = signal(false);
const operations = signal(0);
/** Number of the page's own operations so far. */
export const ownOperations: ReadonlySignal<number> = operations;

/** What is known: an answer, or the problem in its place. `since`: when the first of the failed loads began. */
export type Answer<T> =
  | { value: T; problem: null }
  | { value: undefined; problem: Found & { since: string } }
  | { value: undefined; problem: null };

export type Resource<T> = Answer<T> & {
  /** True once loading takes so long that it should be shown. */
  isLate: ReadonlySignal<boolean>;
  /** True while `value` is the answer to another key than the present one, or older than the page's last operation. */
  isOld: boolean;
  reload(): void;
};

const NONE = { value: undefined, problem: null } as const;

/** Returns what is known after a load that began at `at` has failed: an earlier answer does not hold any more. */
export function failed(before: Answer<unknown>, problem: Found, at: string): Answer<never> {
  return { value: undefined, problem: { ...problem, since: before.problem?.since ?? at } };
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
 * page, and when the connection is lost.
 */
export function useResource<T>(
  key: string,
  load: (signal: AbortSignal) => Promise<T>,
  { isFixed = false, isFresh = false, isOfNow = false } = {},
): Resource<T> {
  const asked = useSignal(key);
  const round = useSignal(0);
  const answer = useSignal<Answer<T>>(kept.has(key) ? { value: kept.get(key) as T, problem: null } : NONE);
  const answered = useSignal(key);
  const answeredAfter = useSignal(operations.peek());
  const isLate = useSignal(false);
  useEffect(() => void (asked.value = key), [key]);
  useSignalEffect(() => {
    const wanted = asked.value;
    void round.value;
    if (isOfNow) void isConnected.value;
    const after = isOfNow ? operations.value : 0;
    const know = (known: Answer<T>): void => {
      answer.value = known;
      answered.value = wanted;
      answeredAfter.value = after;
    };
    if (kept.has(wanted)) {
      know({ value: kept.get(wanted) as T, problem: null });
      if (isFixed) return;
    } else if (isFresh && answered.peek() !== wanted) answer.value = NONE;
    const stopped = new AbortController();
    const begun = new Date().toISOString();
    const fail = (problem: Found): void => {
      if (stopped.signal.aborted) return;
      kept.delete(wanted);
      know(failed(answered.peek() === wanted ? answer.peek() : NONE, problem, begun));
    };
    const late = setTimeout(() => (isLate.value = true), LATE_MS);
    const silent = setTimeout(
      () => answer.peek().value !== undefined && fail({ code: "busy", message: "there is no answer yet" }),
      SILENT_MS,
    );
    const end = (): void => {
      clearTimeout(late);
      clearTimeout(silent);
    };
    void load(stopped.signal)
      .then(
        (found) => {
          if (isOfNow && after !== operations.peek()) return;
          if (!isFresh) keep(wanted, found);
          if (isOfNow) keptOfNow.add(wanted);
          if (!stopped.signal.aborted) know({ value: found, problem: null });
        },
        (error: unknown) => fail(problemOf(error)),
      )
      .finally(() => {
        end();
        if (!stopped.signal.aborted) isLate.value = false;
      });
    return () => {
      stopped.abort();
      end();
      isLate.value = false;
    };
  });
  return {
    ...answer.value,
    isLate: useComputed(() => isLate.value),
    isOld: answered.value !== key || (isOfNow && answeredAfter.value !== operations.value),
    reload: () => round.value++,
  };
}
