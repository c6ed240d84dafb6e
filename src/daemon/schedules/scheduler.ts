import { CairnError, toCairnError } from "../../errors.ts";
import type { ScheduledRun } from "../../formats/records/schedule.ts";
import { changeSchedule, dueAt, keyOf, runIfDue, runOf, type Task } from "../../keep/schedule.ts";
import { type Clock, wakeAt } from "./clock.ts";

/** Milliseconds before the first run: a machine that has just started is busy. */
const FIRST_MS = 1_000;
/** Milliseconds until the next look at a task that another process runs, or whose run could not be recorded. */
const AGAIN_MS = 10 * 60_000;

interface Options {
  clock: Clock;
  log: (message: string) => void;
}

/** Runs tasks when they are due, one at a time, the most overdue first. A task that was missed several times runs once. */
export class Scheduler {
  readonly #options: Options;
  #tasks = new Map<string, Task>();
  /** When this process first had the task. */
  readonly #since = new Map<string, string>();
  #running: { key: string; ended: Promise<void> } | null = null;
  #noting = Promise.resolve();
  #cancel = (): void => undefined;
  readonly #stopped = new AbortController();
  readonly #again = new Set<string>();
  /** Times before which a task is not looked at. */
  readonly #notBefore = new Map<string, number>();

  constructor(options: Options) {
    this.#options = options;
  }

  /** Replaces the tasks. A run that is under way ends with its old task. Of tasks with the same key the first one counts. */
  set(tasks: readonly Task[]): void {
    this.#tasks = new Map();
    const since = new Date(this.#options.clock.now()).toISOString();
    for (const task of tasks) {
      const key = keyOf(task);
      if (this.#tasks.has(key)) continue;
      this.#tasks.set(key, task);
      if (this.#since.has(key)) continue;
      this.#since.set(key, since);
      this.#noting = this.#noting.then(async () => this.#note(task, since));
    }
    this.#wait();
  }

  /** Records when a new task was first due, so that it becomes due even if the daemon starts often. */
  async #note(task: Task, since: string): Promise<void> {
    try {
      await changeSchedule(task, (file) => {
        const isKnown = file.runs.some(({ kind }) => kind === task.kind);
        return isKnown ? null : { ...file, runs: [...file.runs, runOf(task, since)] };
      });
    } catch (error) {
      this.#options.log(`cannot record scheduled tasks: ${toCairnError(error).message}`);
    }
  }

  /** Runs failed tasks again soon: a person may have removed the cause. */
  retryFailed(): void {
    for (const [key, task] of this.#tasks) if (this.#runOf(task).error !== null) this.#again.add(key);
    this.#wait();
  }

  #runOf(task: Task): ScheduledRun {
    return runOf(task, this.#since.get(keyOf(task)));
  }

  #dueAt(task: Task): number {
    const key = keyOf(task);
    const due = this.#again.has(key) ? 0 : dueAt(this.#runOf(task), task, this.#options.clock.now());
    return Math.max(due, this.#notBefore.get(key) ?? 0);
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
    const { clock, log } = this.#options;
    const key = keyOf(task);
    const isForced = this.#again.delete(key);
    this.#notBefore.delete(key);
    const how = { now: () => clock.now(), signal: this.#stopped.signal, isForced };
    try {
      if ((await runIfDue(task, how)) === null) this.#notBefore.set(key, clock.now() + AGAIN_MS);
    } catch (error) {
      // A result that is not saved is not reported; the task does not run again at once.
      this.#notBefore.set(key, clock.now() + Math.max(task.everyMs, AGAIN_MS));
      log(`cannot record that ${task.kind} ran: ${toCairnError(error).message}`);
    }
  }

  /** Returns each task's record and the time of its next run; null: the task runs now. */
  facts(): { task: Task; run: ScheduledRun; nextAt: string | null }[] {
    return [...this.#tasks].map(([key, task]) => {
      const next = Math.max(this.#dueAt(task), this.#options.clock.now());
      const nextAt = this.#running?.key === key ? null : new Date(next).toISOString();
      return { task, run: this.#runOf(task), nextAt };
    });
  }

  /** Stops a running task, and starts no other. */
  async stop(): Promise<void> {
    this.#stopped.abort(new CairnError("interrupted", "the daemon stops"));
    this.#cancel();
    await this.#running?.ended;
    await this.#noting;
  }
}
