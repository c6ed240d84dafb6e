import { CairnError, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import type { ScheduledRun } from "../../formats/records/daemon-state.ts";
import { type Clock, wakeAt } from "./clock.ts";

/** The key of a task's record. */
export type TaskName = Pick<ScheduledRun, "kind" | "repository" | "workspace">;

export interface Task extends TaskName {
  everyMs: number;
  /** True: a task without a run so far runs now, not after one interval. */
  isSoon?: boolean;
  /** Runs the task and returns further members of its record. Throws if the task fails. */
  run: (signal: AbortSignal, before: ScheduledRun) => Promise<Partial<ScheduledRun> | void>;
}

/** Milliseconds before the first run: a machine that has just started is busy. */
const FIRST_MS = 1_000;
/** Milliseconds until a task with a temporary error is tried again, unless it is due sooner. */
const RETRY_MS = 10 * 60_000;

/** The key of a task's record, as text. */
export function keyOf({ kind, repository, workspace }: TaskName): string {
  return JSON.stringify([kind, repository, workspace]);
}

interface Options {
  clock: Clock;
  runs: readonly ScheduledRun[];
  /** Saves all records durably. Throws system errors. */
  keep: (runs: ScheduledRun[]) => void;
  log: (message: string) => void;
}

/**
 * Runs tasks when they are due, one at a time, the most overdue first. A task that was missed several times runs once.
 * A run: the work, then its record ●. A kill in between leaves the old record, and the next start does the work again.
 */
export class Scheduler {
  readonly #options: Options;
  readonly #runs: Map<string, ScheduledRun>;
  #tasks = new Map<string, Task>();
  #running: { key: string; ended: Promise<void> } | null = null;
  #cancel = (): void => undefined;
  readonly #stopped = new AbortController();
  /** Tasks whose last run had a temporary error, for example a server that does not answer. */
  readonly #passing = new Set<string>();
  readonly #again = new Set<string>();

  constructor(options: Options) {
    this.#options = options;
    this.#runs = new Map(options.runs.map((run) => [keyOf(run), run]));
  }

  /**
   * Replaces the tasks. A run that is under way ends with its old task. Drops records of removed tasks, but keeps
   * records of kinds that are not in `known`. Throws system errors if the records cannot be saved.
   */
  set(tasks: readonly Task[], known: readonly string[]): void {
    // Of tasks with the same key the first one counts.
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

  /** Runs failed tasks again soon: a person may have removed the cause. */
  retryFailed(): void {
    for (const [key, { error }] of this.#runs) if (error !== null) this.#again.add(key);
    this.#wait();
  }

  /** Milliseconds since 1970. A recorded time in the future came from a wrong clock and is ignored. */
  #dueAt(task: Task): number {
    const key = keyOf(task);
    const { ran_at, since, again_at: again } = this.#runs.get(key)!;
    if (this.#again.has(key) || (ran_at === null && task.isSoon === true)) return 0;
    const last = Date.parse(ran_at ?? since);
    if (last > this.#options.clock.now()) return 0;
    const due = last + (this.#passing.has(key) ? Math.min(task.everyMs, RETRY_MS) : task.everyMs);
    return again === undefined ? due : Math.min(due, Math.max(last, Date.parse(again)));
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
    // The next start runs a stopped task again; a task that was removed has no record.
    const before = this.#runs.get(key);
    if (before === undefined || (signal.aborted && found.error !== null)) return;
    failpoint("daemon.schedule-ran");
    const at = new Date(clock.now()).toISOString();
    const { code: _code, hint: _hint, again_at: _again, ...kept } = before;
    this.#runs.set(key, { ...kept, ran_at: at, ...(found.error === null ? { good_at: at } : {}), ...found });
    try {
      keep([...this.#runs.values()]);
    } catch (error) {
      // A result that is not saved is not reported; the time of the run is kept so that the task does not run again at once.
      this.#runs.set(key, { ...before, ran_at: at });
      log(`cannot record that ${task.kind} ran: ${toCairnError(error).message}`);
    }
  }

  /** Returns each task's record and the time of its next run; null: the task runs now. */
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

  /** Stops a running task, and starts no other. */
  async stop(): Promise<void> {
    this.#stopped.abort(new CairnError("interrupted", "the daemon stops"));
    this.#cancel();
    await this.#running?.ended;
  }
}
