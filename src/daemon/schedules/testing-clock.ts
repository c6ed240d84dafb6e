import type { Clock } from "./clock.ts";

/** A clock that a test moves. */
export class TestClock implements Clock {
  #now = Date.parse("2026-11-01T00:00:00Z");
  readonly #timers = new Set<{ at: number; work: () => void }>();
  /** Milliseconds in which the machine was awake: timers count nothing else. */
  #awake = 0;

  now(): number {
    return this.#now;
  }

  after(ms: number, work: () => void): () => void {
    const timer = { at: this.#awake + ms, work };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  /** Sets the time of the day, as a person or a sleep does; no timer counts it. */
  jump(ms: number): void {
    this.#now += ms;
  }

  /** Lets time go by, with what its timers do and what that leads to. */
  async pass(ms: number): Promise<void> {
    const end = this.#awake + ms;
    for (;;) {
      await new Promise((done) => setImmediate(done));
      const [next] = [...this.#timers].filter(({ at }) => at <= end).toSorted((a, b) => a.at - b.at);
      const to = next?.at ?? end;
      this.#now += to - this.#awake;
      this.#awake = to;
      if (next === undefined) return;
      this.#timers.delete(next);
      next.work();
    }
  }

  get timers(): number {
    return this.#timers.size;
  }
}
