/** The time of day and timers; tests pass their own. */
export interface Clock {
  /** Milliseconds since 1970. */
  now(): number;
  /** Calls `work` after `ms` milliseconds in which the machine is awake. Returns a function that cancels the call. */
  after(ms: number, work: () => void): () => void;
}

export const SYSTEM_CLOCK: Clock = {
  now: () => Date.now(),
  after(ms, work) {
    const timer = setTimeout(work, ms).unref();
    return () => clearTimeout(timer);
  },
};

/** Milliseconds between two looks at the clock: a timer does not count while the machine sleeps. */
const LOOK_AGAIN_MS = 10 * 60_000;

/**
 * Calls `work` once the clock reaches the time of `due`. Each look calls `due` again, because the machine may have
 * slept and the clock may have been set. Returns a function that cancels the call.
 */
export function wakeAt(clock: Clock, due: () => number, work: () => void): () => void {
  let cancel = (): void => undefined;
  const wait = (): void => {
    cancel = clock.after(Math.min(Math.max(due() - clock.now(), 0), LOOK_AGAIN_MS), () => {
      if (clock.now() >= due()) work();
      else wait();
    });
  };
  wait();
  return () => cancel();
}
