import type { DaemonConfig } from "./config.ts";

type Rules = DaemonConfig["retention"];

type Work = (rules: () => Rules["keep"]) => Promise<{ removed: number; failed: string[] }>;

/** Removes points by the keep rules every so often: one that was missed while nothing ran is caught up soon. */
export class Retainer {
  readonly #work: Work;
  #rules: Rules | null = null;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | null = null;
  #nextAt: number | null = null;
  #last = { removed: 0, failed: [] as string[] };

  constructor(work: Work) {
    this.#work = work;
  }

  /** Goes by these rules from now on, a run that is under way too; `last`: when rules were applied last. */
  start(rules: Rules, last: string | null): void {
    this.#rules = rules;
    const { every_ms: every } = rules;
    const due = last === null ? every : Date.parse(last) + every - Date.now();
    const wait = Math.min(Math.max(due, FIRST_MS), every);
    clearTimeout(this.#timer);
    this.#nextAt = Date.now() + wait;
    this.#timer = setTimeout(() => {
      this.#running ??= this.#run();
    }, wait).unref();
  }

  async #run(): Promise<void> {
    try {
      this.#last = await this.#work(() => this.#rules?.keep ?? null);
    } catch (error) {
      this.#last = { removed: 0, failed: [(error as Error).message] };
    }
    this.#running = null;
    if (this.#rules !== null) this.start(this.#rules, new Date().toISOString());
  }

  facts(): { next_at: string | null; removed: number; failed: string[] } {
    return { next_at: this.#nextAt === null ? null : new Date(this.#nextAt).toISOString(), ...this.#last };
  }

  async stop(): Promise<void> {
    this.#rules = null;
    clearTimeout(this.#timer);
    this.#nextAt = null;
    await this.#running;
  }
}

/** A machine that has just started has other things to do. */
const FIRST_MS = 1_000;
