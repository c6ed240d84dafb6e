import type { DaemonConfig } from "./config.ts";

type Rules = DaemonConfig["retention"];

/** Removes points by the keep rules every so often: one that was missed while nothing ran is caught up soon. */
export class Retainer {
  readonly #work: (rules: Rules["keep"]) => Promise<{ removed: number; failed: string[] }>;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> = Promise.resolve();
  #nextAt: number | null = null;
  #last = { removed: 0, failed: [] as string[] };

  constructor(work: (rules: Rules["keep"]) => Promise<{ removed: number; failed: string[] }>) {
    this.#work = work;
  }

  /** Begins anew with these rules; `last`: when they were applied last. */
  start({ keep, every_ms: every }: Rules, last: string | null): void {
    clearTimeout(this.#timer);
    const due = last === null ? every : Date.parse(last) + every - Date.now();
    const wait = Math.min(Math.max(due, FIRST_MS), every);
    this.#nextAt = Date.now() + wait;
    this.#timer = setTimeout(() => {
      this.#running = this.#run(keep).finally(() => this.start({ keep, every_ms: every }, new Date().toISOString()));
    }, wait).unref();
  }

  async #run(keep: Rules["keep"]): Promise<void> {
    try {
      this.#last = await this.#work(keep);
    } catch (error) {
      this.#last = { removed: 0, failed: [(error as Error).message] };
    }
  }

  facts(): { next_at: string | null; removed: number; failed: string[] } {
    return { next_at: this.#nextAt === null ? null : new Date(this.#nextAt).toISOString(), ...this.#last };
  }

  async stop(): Promise<void> {
    clearTimeout(this.#timer);
    await this.#running;
    clearTimeout(this.#timer);
    this.#nextAt = null;
  }
}

/** A machine that has just started has other things to do. */
const FIRST_MS = 1_000;
