/** The time of the day, and timers; a test has its own. */
export interface Clock {
  /** Milliseconds since 1970. */
  now(): number;
  /** Calls back after so many milliseconds in which the machine is awake. Returns what takes that back. */
  after(ms: number, work: () => void): () => void;
}

export const SYSTEM_CLOCK: Clock = {
  now: () => Date.now(),
  after(ms, work) {
    const timer = setTimeout(work, ms).unref();
    return () => clearTimeout(timer);
  },
};

/** A timer does not count while the machine sleeps, so the clock is looked at again after so many milliseconds. */
const LOOK_AGAIN_MS = 10 * 60_000;

/**
 * Calls back once the clock has come to a time, which is asked for anew at each look: the machine may have slept, and the
 * clock may have been set. Returns what takes that back.
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
