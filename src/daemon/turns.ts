import { CairnError, throwIfAborted } from "../errors.ts";

/** The most calls that wait for their turn on one key. */
const MOST_WAITING = 32;

/** Runs work on one key in the order of the requests, and work on different keys at once. */
export class Turns {
  readonly #last = new Map<string, Promise<unknown>>();
  readonly #waiting = new Map<string, number>();

  /**
   * Runs `work` when all earlier work on `key` has ended, even if it failed. Throws `busy` if too many calls wait
   * already, and `interrupted` without running `work` if the signal has fired by then.
   */
  async take<T>(key: string, work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const waiting = this.#waiting.get(key) ?? 0;
    if (waiting >= MOST_WAITING)
      throw new CairnError("busy", `${waiting} calls wait for this workspace already`, {
        hint: "try again when some have ended",
      });
    this.#waiting.set(key, waiting + 1);
    const begin = async (): Promise<T> => {
      this.#leave(key);
      throwIfAborted(signal);
      return work();
    };
    const before = this.#last.get(key) ?? Promise.resolve();
    const done = before.then(begin, begin);
    const settled = done.catch(() => undefined);
    this.#last.set(key, settled);
    void settled.then(() => {
      if (this.#last.get(key) === settled) this.#last.delete(key);
    });
    return done;
  }

  #leave(key: string): void {
    const left = (this.#waiting.get(key) ?? 1) - 1;
    if (left > 0) this.#waiting.set(key, left);
    else this.#waiting.delete(key);
  }
}
