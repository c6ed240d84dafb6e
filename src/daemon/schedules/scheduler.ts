import { CairnError, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import type { ScheduledRun } from "../../formats/records/daemon-state.ts";
import { type Clock, wakeAt } from "./clock.ts";

/** Names the record of a task. */
export type TaskName = Pick<ScheduledRun, "kind" | "repository" | "workspace">;

/** One thing that is done by the clock. */
export interface Task extends TaskName {
  everyMs: number;
  /** True: one that was never done is done now, and not after one span. */
  isSoon?: boolean;
  /** Does it, and says what is to be recorded besides. Throws where it failed. */
  run: (signal: AbortSignal, before: ScheduledRun) => Promise<Partial<ScheduledRun> | void>;
}

/** A machine that has just started has other things to do. */
const FIRST_MS = 1_000;
/** Milliseconds after which what may succeed later is tried again, where it is not due sooner. */
const RETRY_MS = 10 * 60_000;

/** The task whose record this is. */
export function keyOf({ kind, repository, workspace }: TaskName): string {
  return JSON.stringify([kind, repository, workspace]);
}

interface Options {
  clock: Clock;
  /** Records of before. */
  runs: readonly ScheduledRun[];
  /** Keeps all records durably. Throws what the system says. */
  keep: (runs: ScheduledRun[]) => void;
  log: (message: string) => void;
}

/**
 * Does tasks when they are due, one at a time, the one that waits longest first. One that was missed while nothing ran or the
 * machine slept is done once. A run: the work, then its record ●; a kill between both leaves the record of before, and the
 * next start does the work again.
 */
export class Scheduler {
  readonly #options: Options;
  readonly #runs: Map<string, ScheduledRun>;
  #tasks = new Map<string, Task>();
  #running: { key: string; ended: Promise<void> } | null = null;
  #cancel = (): void => undefined;
  readonly #stopped = new AbortController();
  /** Tasks whose last run failed at what may pass, as a server that does not answer. */
  readonly #passing = new Set<string>();
  readonly #again = new Set<string>();

  constructor(options: Options) {
    this.#options = options;
    this.#runs = new Map(options.runs.map((run) => [keyOf(run), run]));
  }

  /**
   * Does these tasks from now on. A run that is under way ends as it began. Records of tasks that are no more are dropped, but
   * for kinds of which this version knows nothing. Throws what the system says where that cannot be kept.
   */
  set(tasks: readonly Task[], known: readonly string[]): void {
    // The first of a name counts.
    this.#tasks = new Map();
    for (const task of tasks) if (!this.#tasks.has(keyOf(task))) this.#tasks.set(keyOf(task), task);
    let isChanged = false;
    for (const [key, { kind }] of this.#runs)
      if (known.includes(kind) && !this.#tasks.has(key)) isChanged = this.#runs.delete(key);
    const since = new Date(this.#options.clock.now()).toISOString();
    for (const [key, { kind, repository, workspace }] of this.#tasks) {
      if (this.#runs.has(key)) continue;
      this.#runs.set(key, { kind, repository, workspace, since, ran_at: null, good_at: null, error: null });
      isChanged = true;
    }
    this.#wait();
    if (isChanged) this.#options.keep([...this.#runs.values()]);
  }

  /** Has what failed last done again soon: somebody may have mended what it failed at. */
  retryFailed(): void {
    for (const [key, { error }] of this.#runs) if (error !== null) this.#again.add(key);
    this.#wait();
  }

  /** Milliseconds since 1970. A time that is yet to come was written by a wrong clock, and counts for nothing. */
  #dueAt(task: Task): number {
    const key = keyOf(task);
    const { ran_at, since } = this.#runs.get(key)!;
    if (this.#again.has(key) || (ran_at === null && task.isSoon === true)) return 0;
    const last = Date.parse(ran_at ?? since);
    if (last > this.#options.clock.now()) return 0;
    return last + (this.#passing.has(key) ? Math.min(task.everyMs, RETRY_MS) : task.everyMs);
  }

  #next(): { task: Task; due: number } | null {
    let next: { task: Task; due: number } | null = null;
    for (const task of this.#tasks.values()) {
      const due = this.#dueAt(task);
      if (next === null || due < next.due) next = { task, due };
    }
    return next;
  }

  #wait(): void {
    this.#cancel();
    if (this.#running !== null || this.#stopped.signal.aborted || this.#tasks.size === 0) return;
    const { clock } = this.#options;
    const begin = (): void => {
      const { task } = this.#next()!;
      const ended = this.#run(task).finally(() => {
        this.#running = null;
        this.#wait();
      });
      this.#running = { key: keyOf(task), ended };
    };
    this.#cancel = clock.after(FIRST_MS, () => {
      this.#cancel = wakeAt(clock, () => this.#next()!.due, begin);
    });
  }

  async #run(task: Task): Promise<void> {
    const { clock, keep, log } = this.#options;
    const { signal } = this.#stopped;
    const key = keyOf(task);
    let found: Partial<ScheduledRun>;
    this.#passing.delete(key);
    this.#again.delete(key);
    try {
      found = { error: null, ...(await task.run(signal, this.#runs.get(key)!)) };
    } catch (error) {
      const { message, code, hint, retryable } = toCairnError(error);
      found = { error: message, code, ...(hint === undefined ? {} : { hint }) };
      if (retryable) this.#passing.add(key);
    }
    // One that was stopped is done again by the next start; one that nobody wants any more has no record.
    const before = this.#runs.get(key);
    if (before === undefined || (signal.aborted && found.error !== null)) return;
    failpoint("daemon.schedule-ran");
    const at = new Date(clock.now()).toISOString();
    const { code: _code, hint: _hint, ...kept } = before;
    this.#runs.set(key, { ...kept, ran_at: at, ...(found.error === null ? { good_at: at } : {}), ...found });
    try {
      keep([...this.#runs.values()]);
    } catch (error) {
      // Nothing is said that is not kept; that it ran only keeps it from being done again at once.
      this.#runs.set(key, { ...before, ran_at: at });
      log(`cannot record that ${task.kind} ran: ${toCairnError(error).message}`);
    }
  }

  /** Record of each task, and when it is done next; null: it is under way. */
  facts(): { task: Task; run: ScheduledRun; nextAt: string | null }[] {
    return [...this.#tasks].map(([key, task]) => {
      const next = Math.max(this.#dueAt(task), this.#options.clock.now());
      return {
        task,
        run: this.#runs.get(key)!,
        nextAt: this.#running?.key === key ? null : new Date(next).toISOString(),
      };
    });
  }

  /** Stops a run that is under way, and begins none any more. */
  async stop(): Promise<void> {
    this.#stopped.abort(new CairnError("interrupted", "the daemon stops"));
    this.#cancel();
    await this.#running?.ended;
  }
}
