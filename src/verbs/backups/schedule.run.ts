import type { WorkspaceCallOptions } from "../../contract/words.ts";
import { CairnError, throwIfAborted, toCairnError } from "../../errors.ts";
import { recordPath } from "../../formats/records/record.ts";
import type { ScheduledRun } from "../../formats/records/schedule.ts";
import { displayPath, printablePath } from "../../fs/paths/safe-path.ts";
import type { Opened } from "../../keep/hand.ts";
import { type BackupRow, keptRow } from "../../keep/kept-runs.ts";
import { callIfNews, stateOf } from "../../keep/raised.ts";
import { changeSchedule, dueAt, type Made, newest, runIfDue, runOf, type Task } from "../../keep/schedule.ts";
import { backupTasks, type Folder, saveTask, type WorkHands } from "../../keep/tasks.ts";
import { readBackupNotes } from "../../workspace/place/backup-notes.ts";
import { isFolderThere } from "../../workspace/place/control-directory.ts";
import { type FoundWorkspace, workspaceRef } from "../../workspace/place/find-workspace.ts";
import type { DueResult, Schedule, ScheduleEdit, ScheduleRow } from "./schedule.ts";

/** Milliseconds between two runs of the timer. Work that is due before its next run is done now. */
const TIMER_MS = 10 * 60_000;

interface Work {
  tasks: readonly Task[];
  row: BackupRow | null;
}

/** Returns the scheduled work of a workspace: that of the daemon, else saves and the backups of `backup use`. */
function workOf(found: FoundWorkspace, { tasksOf }: Pick<Opened, "tasksOf">, hands: WorkHands): Work {
  const { id } = found.workspace;
  const served = tasksOf(id);
  if (served !== null) return { tasks: served, row: null };
  const folder: Folder = { ...recordPath(found.folder), id };
  const row = keptRow(found);
  const backups = row === null ? [] : backupTasks([row], () => [folder], hands);
  // A backup saves the folder, too, and then no save is due.
  return { tasks: [...backups, saveTask(folder, hands)], row };
}

/**
 * Runs the tasks of a workspace that are due, and calls its alarm. A task that fails holds up only the work on the same repository.
 * Work that another process does is left to that process.
 */
export async function due(hand: Opened, options: WorkspaceCallOptions): Promise<DueResult> {
  const { client, openStorage, parts } = hand;
  const { signal = new AbortController().signal, onWarning, onProgress } = options;
  const call = { signal, onProgress, onWarning };
  const result: DueResult = { ran: [], save_point_id: null, snapshot_id: null, removed: [], partly: false };
  const hands: WorkHands = {
    openRepository: async (opening) => {
      const { openRepository } = await import("../../keep/opened-repository.ts");
      return openRepository({ openStorage, parts }, { ...opening, ...call });
    },
    client: async () => client,
    save: async (_folder, _signal, how) =>
      client.save({ ...call, ...how, skipUnchanged: true, cause: { kind: "schedule" } }),
    warn: (message) => onWarning?.(message),
    now: Date.now,
  };
  const made = ({ save_point_id: point, snapshot_id: snapshot, removed = [], isPartly = false }: Made): void => {
    result.save_point_id = point ?? result.save_point_id;
    result.snapshot_id = snapshot ?? result.snapshot_id;
    result.removed = [...result.removed, ...removed];
    result.partly ||= isPartly;
  };
  const found = await hand.within(options.workspaceName, async (workspace) => workspace.found);
  const { tasks, row } = workOf(found, hand, hands);
  if (row === null && !isFolderThere(found.folder)) {
    onWarning?.(`${displayPath(found.folder).path} is not there, so it was not saved`);
    return result;
  }
  const failed = new Set<string | null>();
  for (const task of tasks) {
    throwIfAborted(signal);
    if (task.repository !== null && failed.has(task.repository)) continue;
    const run = await runIfDue(task, { now: Date.now, signal, made, onProgress, earlyMs: TIMER_MS });
    throwIfAborted(signal);
    if (run === null) continue;
    if (run.error !== null) failed.add(task.repository);
    result.ran.push({ kind: kindOf(run), repository: run.repository, error: errorIn(run) });
  }
  if (row !== null) await tellAlarm(found, { tasks, row }, options);
  return result;
}

/** Calls the alarm of `backup use` for each task whose state is news. A failure of that call is a warning. */
async function tellAlarm(
  { folder, workspace: { id } }: FoundWorkspace,
  { tasks, row }: Work,
  { signal, onWarning }: WorkspaceCallOptions,
): Promise<void> {
  const workspace = { id, path: displayPath(folder).path };
  const saved = runOf({ kind: "save", workspace: id, repository: null });
  for (const task of tasks) {
    const run = runOf(task);
    // A folder that cannot be saved is not backed up, which is one failure.
    if (task.kind === "backup" && run.error !== null && run.error === saved.error) continue;
    const { repository } = task;
    const job = { what: kindOf(run), workspace, repository, lastSuccessAt: run.good_at, ...stateOf(run) };
    try {
      await callIfNews(row?.on_failure ?? null, job, { signal });
    } catch (error) {
      throwIfAborted(signal);
      onWarning?.(toCairnError(error).message);
    }
  }
}

function kindOf({ kind }: { kind: string }): ScheduleRow["kind"] {
  return kind as ScheduleRow["kind"];
}

function errorIn({ error, code = "internal", hint }: ScheduledRun): ScheduleRow["error"] {
  return error === null ? null : { code, message: error, hint: hint ?? null };
}

/** Returns the scheduled tasks of a workspace, and how their last runs ended. */
export async function schedule(hand: Opened, options: WorkspaceCallOptions): Promise<Schedule> {
  const { found, savedAt } = await hand.within(options.workspaceName, async (workspace) => ({
    found: workspace.found,
    savedAt: workspace.points.latest()?.descriptor.created_at ?? null,
  }));
  const now = Date.now();
  const none = async (): Promise<never> => Promise.reject(new CairnError("internal", "only looked at"));
  const hands = { openRepository: none, client: none, save: none, warn: () => undefined, now: () => now };
  const { tasks, row } = workOf(found, hand, hands);
  // Without `backup use` nobody may ever have wanted saves by the clock.
  const isWanted = ({ kind, ran_at: at }: ScheduleRow): boolean => row !== null || at !== null || kind !== "save";
  const runs = tasks.map((task) => rowOf(task, found.workspace.registered_at, now)).filter(isWanted);
  const good = (of: string): (string | null)[] => runs.filter(({ kind }) => kind === of).map(({ good_at: at }) => at);
  const saved = runOf({ kind: "save", workspace: found.workspace.id, repository: null }).good_at;
  const backedUp = readBackupNotes(found.paths).map(({ at }) => at);
  return {
    workspace: workspaceRef(found),
    last_save_at: newest([savedAt, saved]),
    last_backup_at: newest([...backedUp, ...good("backup")]),
    last_verify_at: newest(good("verify")),
    last_proof_at: newest(good("restore-check")),
    next_at: runs.map(({ next_at: at }) => at).toSorted()[0] ?? null,
    runs,
    problems: runs.flatMap((run) => problemOf(run, now)),
  };
}

/** Milliseconds after which work that was due and did not run is late. */
const LATE_MS = 3_600_000;

function problemOf(
  { kind, repository, error, failing_since: since, next_at: next }: ScheduleRow,
  now: number,
): string[] {
  const what = repository === null ? kind : `${kind} ${kind === "backup" ? "into" : "of"} ${printablePath(repository)}`;
  if (error !== null) return [`${what} fails since ${since}: ${error.message}`];
  return now - Date.parse(next) > LATE_MS ? [`${what} was due at ${next} and has not run`] : [];
}

function rowOf(task: Task, since: string, now: number): ScheduleRow {
  const run = runOf(task, since);
  const { repository, ran_at, good_at, failures = 0, failing_since = null } = run;
  const next = Math.max(dueAt(run, task, now), Date.parse(ran_at ?? run.since));
  return {
    kind: kindOf(task),
    repository,
    every_ms: task.everyMs,
    ran_at,
    good_at,
    failing_since,
    failures,
    next_at: new Date(next).toISOString(),
    error: errorIn(run),
  };
}

const UNITS: Readonly<Record<string, number>> = { m: 60_000, h: 3_600_000, d: 86_400_000 };

function spanOf(text: string): number {
  const [, count = "", unit = ""] = /^([0-9]{1,5})([mhd])$/.exec(text) ?? [];
  const ms = Number(count) * (UNITS[unit] ?? 0);
  if (ms >= TIMER_MS) return ms;
  throw new CairnError(
    "usage",
    `the time between two runs must be a number with m, h or d, at least 10m; found ${JSON.stringify(text)}`,
  );
}

/** Changes how often work on a workspace runs. Throws `usage`; `refused` if a daemon's configuration sets it. */
export async function setSchedule(hand: Opened, edit: ScheduleEdit, options: WorkspaceCallOptions): Promise<Schedule> {
  const { workspace } = await hand.within(options.workspaceName, async ({ found }) => found);
  if (hand.tasksOf(workspace.id) !== null)
    throw new CairnError("refused", "the daemon runs this folder's work by its configuration file", {
      hint: "change that file, and make the daemon read it again",
    });
  const { restoreCheck, ...others } = edit;
  const given = Object.entries({ ...others, "restore-check": restoreCheck }).filter(([, span]) => span !== undefined);
  const spans = given.map(([kind, span]): [string, number | null] => [
    kind,
    span === null || span === "" ? null : spanOf(span as string),
  ]);
  await changeSchedule({ workspace: workspace.id, repository: null }, (file) => {
    const every = { ...file.every };
    for (const [kind, ms] of spans)
      if (ms === null) delete every[kind];
      else every[kind] = ms;
    return { ...file, every };
  });
  return schedule(hand, options);
}
