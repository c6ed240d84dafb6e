import { createHash } from "node:crypto";
import { join } from "node:path";
import type { CallOptions } from "../contract/words.ts";
import { type CairnError, toCairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { decodeSchedule, encodeSchedule, type ScheduledRun, type ScheduleFile } from "../formats/records/schedule.ts";
import { durableMkdir, durableWrite, readRecord } from "../fs/durable.ts";
import { acquireLock } from "../fs/lock.ts";
import { userStateDirectory } from "../fs/users.ts";

/** The folder and the repository whose record is meant. */
export type SchedulePlace = Pick<ScheduleFile, "workspace" | "repository">;
/** The name of a job. */
export type TaskName = Pick<ScheduledRun, "kind" | "repository" | "workspace">;

export interface Task extends TaskName {
  everyMs: number;
  /** True: a task without a run so far runs now, not after one interval. */
  isSoon?: boolean;
  /** Runs the task and returns further members of its record. Throws if the task fails. */
  run: (call: TaskCall) => Promise<Partial<ScheduledRun> | void>;
}

export interface TaskCall {
  signal: AbortSignal;
  /** The job's record. */
  before: ScheduledRun;
  /** Gets ids as soon as they are known. */
  made?: ((made: Made) => void) | undefined;
  onProgress?: CallOptions["onProgress"];
}

/** Ids of the points and snapshots that a run made or removed. */
export interface Made {
  save_point_id?: string | undefined;
  snapshot_id?: string | undefined;
  removed?: readonly string[];
  /** True: the point or the snapshot lacks a part of the folder, or a command after it failed. */
  isPartly?: boolean | undefined;
}

/** Milliseconds until a failed task runs again: doubled with each further failure, at most `LONGEST_RETRY_MS`. */
const RETRY_MS = 10 * 60_000;
const LONGEST_RETRY_MS = 60 * 60_000;

/** The name of a job as text. */
export function keyOf({ kind, repository, workspace }: TaskName): string {
  return JSON.stringify([kind, repository, workspace]);
}

/**
 * Returns when a task is due, in milliseconds since 1970. A recorded time in the future came from a wrong clock and is
 * ignored.
 */
export function dueAt(
  { ran_at: ran, since, failures = 0, again_at: again }: ScheduledRun,
  { everyMs, isSoon }: Pick<Task, "everyMs" | "isSoon">,
  now: number,
): number {
  if (ran === null && isSoon === true) return 0;
  const last = Date.parse(ran ?? since);
  if (last > now) return 0;
  const retryMs = failures > 0 ? Math.min(RETRY_MS * 2 ** (failures - 1), LONGEST_RETRY_MS) : Infinity;
  const due = last + Math.min(everyMs, retryMs);
  return again === undefined ? due : Math.min(due, Math.max(last, Date.parse(again)));
}

/** Returns the latest time; null if there is none. */
export function newest(times: readonly (string | null)[]): string | null {
  const known = times.filter((at) => at !== null);
  return known.toSorted((a, b) => Date.parse(b) - Date.parse(a))[0] ?? null;
}

function placeOf({ workspace, repository }: SchedulePlace): string {
  const hash = createHash("sha256")
    .update(JSON.stringify([workspace, repository]))
    .digest("hex");
  return join(userStateDirectory(), "schedule", hash.slice(0, 32));
}

/** Returns the record of a folder, a repository, or a folder in a repository. One that cannot be read counts as none. */
export function readSchedule(place: SchedulePlace): ScheduleFile {
  return readUnless(place, () => true);
}

function readUnless({ workspace, repository }: SchedulePlace, isNone: (error: CairnError) => boolean): ScheduleFile {
  try {
    const kept = readRecord(`${placeOf({ workspace, repository })}.json`, decodeSchedule);
    if (kept !== null) return kept;
  } catch (error) {
    if (!isNone(toCairnError(error))) throw error;
  }
  return { workspace, repository, runs: [], alarms: [] };
}

/** Returns the record of a job; one without a run if there is none yet. */
export function runOf(name: TaskName, since = new Date().toISOString()): ScheduledRun {
  return readSchedule(name).runs.find(({ kind }) => kind === name.kind) ?? firstRun(name, since);
}

function firstRun({ kind, repository, workspace }: TaskName, since: string): ScheduledRun {
  return { kind, repository, workspace, since, ran_at: null, good_at: null, error: null };
}

/**
 * Replaces a record durably by the result of `change`; null: the record stays. One process at a time does so. Replaces a
 * damaged record. Throws `newer_version` and system errors.
 */
export async function changeSchedule(
  place: SchedulePlace,
  change: (file: ScheduleFile) => ScheduleFile | null,
): Promise<void> {
  durableMkdir(join(userStateDirectory(), "schedule"));
  using _lock = await acquireLock(`${placeOf(place)}.lock`, { purpose: "schedule" });
  const changed = change(readUnless(place, ({ code }) => code === "damaged"));
  if (changed !== null) durableWrite(`${placeOf(place)}.json`, encodeSchedule(changed), { mode: 0o600 });
}

/** Runs `work` unless another process does the same; null then. */
export async function alone<T>(place: SchedulePlace, purpose: string, work: () => Promise<T>): Promise<T | null> {
  durableMkdir(join(userStateDirectory(), "schedule"));
  const lock = await acquireLock(`${placeOf(place)}.${purpose}.lock`, { purpose, timeoutMs: 0 }).catch(
    (error: unknown) => {
      if (toCairnError(error).code === "busy") return null;
      throw error;
    },
  );
  if (lock === null) return null;
  using _lock = lock;
  return await work();
}

/** Records how a run of a job ended: with `error` null well, else failed. Returns the job's new record. */
export async function recordRun(
  name: TaskName,
  found: Partial<ScheduledRun> & { error: string | null },
  at = new Date().toISOString(),
): Promise<ScheduledRun> {
  let run = firstRun(name, at);
  await changeSchedule(name, (file) => {
    const {
      code: _code,
      hint: _hint,
      again_at: _again,
      unread,
      failures = 0,
      failing_since,
      ...kept
    } = file.runs.find(({ kind }) => kind === name.kind) ?? run;
    run =
      found.error === null
        ? { ...kept, ran_at: at, good_at: at, ...found }
        : {
            ...kept,
            ...(unread && { unread }),
            ran_at: at,
            failures: failures + 1,
            failing_since: failing_since ?? at,
            ...found,
          };
    return { ...file, runs: [...file.runs.filter(({ kind }) => kind !== name.kind), run] };
  });
  return run;
}

/** Returns the members of a record for an error. */
export function failureOf(error: unknown): Partial<ScheduledRun> & { error: string } {
  const { message, code, hint } = toCairnError(error);
  return { error: message, code, ...(hint === undefined ? {} : { hint }) };
}

interface RunOptions extends Omit<TaskCall, "before"> {
  now: () => number;
  /** Milliseconds before its time at which a task that is well runs, too. */
  earlyMs?: number;
  /** True: runs the task at any time. */
  isForced?: boolean;
}

/**
 * Runs a task if it is due, and records how the run ended. A kill before the record leaves the old record, and the task
 * runs again. Returns null if the task was not due, another process runs it, or it was stopped or cancelled.
 */
export async function runIfDue(
  task: Task,
  { now, signal, made, onProgress, earlyMs = 0, isForced = false }: RunOptions,
): Promise<ScheduledRun | null> {
  return alone(task, "run", async () => {
    const before = runOf(task, new Date(now()).toISOString());
    // Read under the lock: a process that had the lock has recorded its run.
    const early = before.error === null ? earlyMs : 0;
    if (!isForced && dueAt(before, task, now()) > now() + early) return null;
    let found: Partial<ScheduledRun> & { error: string | null };
    try {
      found = { error: null, ...(await task.run({ signal, before, made, onProgress })) };
    } catch (error) {
      if (toCairnError(error).details?.["cancelled"] === true) return null;
      // Also `interrupted`, if nobody stopped the run: for example a command that a signal ended.
      found = failureOf(error);
    }
    if (signal.aborted && found.error !== null) return null;
    failpoint("daemon.schedule-ran");
    return recordRun(task, found, new Date(now()).toISOString());
  });
}
