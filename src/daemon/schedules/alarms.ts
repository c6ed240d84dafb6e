import { toCairnError } from "../../errors.ts";
import { alarmText, type callAlarm } from "../../keep/alarm.ts";
import { callIfNews, type WatchedJob } from "../../keep/raised.ts";
import type { Log } from "../log/log.ts";

/** A job and its alarm; null: it has none. */
export type Alarmed = WatchedJob & { alarm: string | null };

interface Options {
  log: Log;
  call: typeof callAlarm;
  now: () => number;
}

/** Calls alarms one at a time beside the daemon's work, so that an alarm that hangs holds up nothing. */
export class Alarms {
  readonly #options: Options;
  readonly #stopped = new AbortController();
  #next: readonly Alarmed[] | null = null;
  #working: Promise<void> | null = null;

  constructor(options: Options) {
    this.#options = options;
  }

  /** Compares `jobs`, the complete list, with the records. Returns before an alarm is called. */
  judge(jobs: readonly Alarmed[]): void {
    this.#next = jobs;
    this.#working ??= this.#work().finally(() => (this.#working = null));
  }

  async #work(): Promise<void> {
    const { log, now, call } = this.#options;
    const { signal } = this.#stopped;
    for (; this.#next !== null && !signal.aborted;) {
      const jobs = this.#next;
      this.#next = null;
      for (const { alarm, ...job } of jobs)
        try {
          const told = await callIfNews(alarm, job, { now, signal, call });
          if (told !== null) log(`the alarm was called: ${alarmText(told)}`);
        } catch (failed) {
          // The next start calls the alarm.
          if (signal.aborted) return;
          log(`${toCairnError(failed).message}; the alarm is called again in 10 minutes`, { priority: "error" });
        }
    }
  }

  /** Stops a running call, and starts no other. */
  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#working;
  }
}
