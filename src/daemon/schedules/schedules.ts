import { throwIfAborted, toCairnError } from "../../errors.ts";
import type { ServedWorkspace } from "../../formats/records/daemon-state.ts";
import type { ScheduledRun } from "../../formats/records/schedule.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import { callAlarm } from "../../keep/alarm.ts";
import { type BackupRow, keptRow } from "../../keep/kept-runs.ts";
import { stateOf } from "../../keep/raised.ts";
import { keyOf, runOf, type Task, type TaskName } from "../../keep/schedule.ts";
import { backupTasks, saveFolder, saveTask, type WorkHands } from "../../keep/tasks.ts";
import type { DaemonStatus } from "../../verbs/schemas.ts";
import { findWorkspace, realPathOf } from "../../workspace/place/find-workspace.ts";
import type { DaemonConfig } from "../config.ts";
import type { Log } from "../log/log.ts";
import type { Running } from "../records/kept-records.ts";
import { folderOf, type KeptState } from "../state/kept-state.ts";
import { agesOf } from "./ages.ts";
import { type Alarmed, Alarms } from "./alarms.ts";
import { AutoSaves, type Changes, type SaveRules } from "./auto-saves.ts";
import { type Clock, SYSTEM_CLOCK } from "./clock.ts";
import { Scheduler } from "./scheduler.ts";

export interface ScheduleHands extends Pick<WorkHands, "openRepository"> {
  client: (served: ServedWorkspace) => ReturnType<WorkHands["client"]>;
  /** Saves a folder in its turn if it changed. */
  save: (served: ServedWorkspace, ...more: SaveArguments) => ReturnType<WorkHands["save"]>;
  kept: KeptState;
  changes: Changes;
  /** Time of the newest point of a workspace; null: there is none, or the points cannot be read now. */
  lastPointAt: (served: ServedWorkspace) => string | null;
  /** Removes points by the keep rules. Returns their number, and the failures. */
  cleanUp: (signal: AbortSignal) => Promise<{ removed: number; failed: string[] }>;
  /** Lists runs while they are under way. */
  running: Pick<Running, "during">;
  /** A line for the operator's log. */
  log: Log;
}

type SaveArguments = Parameters<WorkHands["save"]> extends [unknown, ...infer Rest] ? Rest : never;

const QUIET_MS = 30_000;
const MOST_MS = 5 * 60_000;
/** Milliseconds between two comparisons of the limits with the clock. */
const LOOK_MS = 60_000;

/** Milliseconds between the end of a run and a look at its record. */
const RECORDED_MS = 500;

type Row = DaemonStatus["schedules"][number];

/** A daemon's scheduled work: saves, and one at a time cleanups, backups, verifications, restore checks and prunes. */
export class Schedules {
  readonly #hands: ScheduleHands;
  readonly #clock: Clock;
  readonly #scheduler: Scheduler;
  readonly #saves: AutoSaves;
  readonly #alarms: Alarms;
  readonly #work: WorkHands;
  /** Workspaces whose last save failed. */
  readonly #unsaved = new Set<string>();
  /** Alarms of `backup use`, by the name of the task. */
  #ownAlarms: ReadonlyMap<string, string | null> = new Map();
  /** False: no job had an alarm at the last look. */
  #wasWatched = true;
  #isStopped = false;
  #cancelLook = (): void => undefined;
  #config: DaemonConfig | null = null;
  #cleaned: { removed: number; failed: string[] } = { removed: 0, failed: [] };

  /** `hands.kept` has a state. */
  constructor(hands: ScheduleHands, clock: Clock = SYSTEM_CLOCK) {
    this.#hands = hands;
    this.#clock = clock;
    const { kept, changes, log } = hands;
    this.#scheduler = new Scheduler({ clock, log });
    const servedBy = ({ id }: { id: string }): ServedWorkspace => kept.state.workspaces.find((each) => each.id === id)!;
    this.#work = {
      openRepository: hands.openRepository,
      client: async (folder) => hands.client(servedBy(folder)),
      save: async (folder, ...more) => hands.save(servedBy(folder), ...more),
      warn: (warning, folder) => {
        const workspace = folderOf(folder);
        log(`${printablePath(workspace)}: ${warning}`, { priority: "warning", workspace });
      },
      now: () => clock.now(),
    };
    this.#alarms = new Alarms({ log, call: callAlarm, now: () => clock.now() });
    this.#saves = new AutoSaves({ clock, changes, save: async (id, signal) => this.#saveBySelf(id, signal) });
  }

  /** Applies a configuration from now on. */
  begin(config: DaemonConfig): void {
    this.#config = config;
    this.refresh();
    this.#scheduler.retryFailed();
    this.#look();
    for (const row of config.backup)
      if (row.workspace !== null && this.#servedBy(row).length === 0)
        this.#hands.log(
          `[[backup]] ${printablePath(row.workspace)}: no such workspace is served, so it is not backed up`,
          {
            priority: "warning",
          },
        );
  }

  /** Applies the configuration to the workspaces that are served now. */
  refresh(): void {
    const { kept } = this.#hands;
    const config = this.#config!;
    this.#saves.set(
      saveRules(config),
      kept.state.workspaces.map(({ id }) => id),
    );
    const tasks: Task[] = [
      {
        kind: "cleanup",
        repository: null,
        workspace: null,
        everyMs: config.retention.every_ms,
        run: async ({ signal }) => this.#cleanUp(signal),
      },
      ...backupTasks(config.backup, (row) => this.#servedBy(row), this.#work),
    ];
    // A row of the configuration takes precedence over `backup use`.
    const configured = new Set(tasks.map(keyOf));
    const own = new Map<string, string | null>();
    for (const served of kept.state.workspaces) {
      const row = this.#rowOf(served);
      if (row === null) continue;
      const alarm = row.on_failure ?? null;
      own.set(keyOf({ kind: "save", workspace: served.id, repository: null }), alarm);
      for (const task of backupTasks([row], () => [served], this.#work)) {
        if (configured.has(keyOf(task))) continue;
        tasks.push(task);
        own.set(keyOf(task), alarm);
      }
    }
    this.#ownAlarms = own;
    this.#scheduler.set(tasks.map((task) => ({ ...task, run: this.#logged(task) })));
  }

  /** The repository that `backup use` keeps for a folder, if this daemon's user set it. */
  #rowOf(served: ServedWorkspace): BackupRow | null {
    try {
      const found = findWorkspace(folderOf(served));
      return found?.workspace.id === served.id ? keptRow(found) : null;
    } catch (error) {
      this.#hands.log(
        `${printablePath(folderOf(served))} is not backed up by \`backup use\`: ${toCairnError(error).message}`,
        {
          priority: "warning",
          workspace: folderOf(served),
        },
      );
      return null;
    }
  }

  /** The daemon's work on the workspace with an id, and on its repositories. */
  tasksOf(id: string): Task[] {
    const tasks = this.#scheduler.facts().map(({ task }) => task);
    const repositories = tasks.filter(({ workspace }) => workspace === id).map(({ repository }) => repository);
    const own = tasks.filter(
      ({ kind, workspace, repository }) =>
        kind !== "cleanup" && (workspace === id || (workspace === null && repositories.includes(repository))),
    );
    const served = this.#hands.kept.state.workspaces.find((each) => each.id === id);
    // A timer's `due` saves the folders that the daemon does not save by itself.
    return served === undefined || saveRules(this.#config!) !== null ? own : [...own, saveTask(served, this.#work)];
  }

  #servedBy({ workspace }: BackupRow): readonly ServedWorkspace[] {
    const { workspaces } = this.#hands.kept.state;
    if (workspace === null) return workspaces;
    const place = realPathOf(workspace);
    return workspaces.filter((served) => folderOf(served).equals(place));
  }

  async #cleanUp(signal: AbortSignal): Promise<{ error: string | null }> {
    this.#cleaned = await this.#hands.cleanUp(signal);
    const { failed } = this.#cleaned;
    return { error: failed[0] ?? null };
  }

  /**
   * Calls the alarm for jobs that began to fail and for jobs that are well again. A timer repeats this, because a limit
   * passes without a run.
   */
  #look(): void {
    this.#cancelLook();
    const config = this.#config;
    if (config === null || this.#isStopped) return;
    const { on_failure: onFailure } = config.alarm;
    const isWatched = onFailure !== null || [...this.#ownAlarms.values()].some((alarm) => alarm !== null);
    if (!isWatched && !this.#wasWatched) return;
    this.#wasWatched = isWatched;
    this.#alarms.judge(this.#jobs(config));
    const spans = Object.values(config.limits).filter((limit) => limit !== null);
    if (isWatched) this.#cancelLook = this.#clock.after(Math.min(LOOK_MS, ...spans), () => this.#look());
  }

  /** State of each job that the alarm watches. A failure counts until a success, even if the job is late. */
  #jobs(config: DaemonConfig): Alarmed[] {
    const { kept } = this.#hands;
    const now = this.#clock.now();
    const runs = this.runs;
    const ofWorkspaces = kept.state.workspaces.flatMap((served) => this.#jobsOf(served, { config, runs, now }));
    const others = this.#scheduler.facts().flatMap((each): Alarmed[] => {
      const { task, run } = each;
      if (task.kind === "cleanup" || task.kind === "backup") return [];
      const workspace = kept.state.workspaces.find(({ id }) => id === task.workspace) ?? null;
      const state = stateOf(run, this.#row(each, now).overdue);
      return [
        {
          what: task.kind as Alarmed["what"],
          workspace,
          repository: task.repository,
          lastSuccessAt: run.good_at,
          ...state,
          alarm: this.#alarmOf(task),
        },
      ];
    });
    return [...ofWorkspaces, ...others];
  }

  #alarmOf(task: TaskName): string | null {
    return this.#ownAlarms.get(keyOf(task)) ?? this.#config!.alarm.on_failure;
  }

  #jobsOf(
    served: ServedWorkspace,
    { config, runs, now }: { config: DaemonConfig; runs: readonly ScheduledRun[]; now: number },
  ): Alarmed[] {
    const { id: workspace } = served;
    const { limits } = config;
    const ages = (last_point_at: string | null): ReturnType<typeof agesOf> =>
      agesOf({ ...served, last_point_at }, { runs, limits, now });
    let { measured, late } = ages(null);
    const saved = runs.find((run) => run.kind === "save" && run.workspace === workspace);
    // The newest point is looked for only if automatic saves are too old.
    if ((saved?.error ?? null) !== null || late.some(({ kind }) => kind === "save"))
      ({ measured, late } = ages(this.#hands.lastPointAt(served)));
    const isWatched = {
      save: saveRules(config) !== null || limits.save_age_ms !== null,
      backup: limits.backup_age_ms !== null,
      proof: limits.proof_age_ms !== null,
    };
    return measured.flatMap((each): Alarmed[] => {
      const { kind: what, repository, at } = each;
      const name = { kind: what, repository, workspace };
      let run = runs.find((one) => keyOf(one) === keyOf(name));
      if (!isWatched[what] && run === undefined) return [];
      // A folder that cannot be saved is not backed up, which is one failure.
      if (what === "backup" && (run?.error ?? null) !== null && run?.error === saved?.error) return [];
      // A point that a person made after a failed save is a success.
      if (what === "save" && at !== null && (run?.ran_at ?? at) <= at) run = undefined;
      const state = stateOf(run ?? {}, late.includes(each));
      return [{ what, workspace: served, repository, lastSuccessAt: at, ...state, alarm: this.#alarmOf(name) }];
    });
  }

  async #saveBySelf(id: string, signal: AbortSignal): Promise<void> {
    const { kept, log } = this.#hands;
    const clock = this.#clock;
    const served = kept.state.workspaces.find((each) => each.id === id);
    if (served === undefined) return;
    const started = clock.now();
    const about = { workspace: folderOf(served), verb: "save" };
    const shown = printablePath(about.workspace);
    try {
      const { made, save_point_id: point } = await this.#hands.running.during(
        { verb: "save", place: served, caller: null },
        signal,
        // The files of a hook would be a change, and the next save would follow at once.
        async ({ signal, onProgress }) =>
          saveFolder(served, { hands: this.#work, signal, onProgress }, { hooks: false }),
      );
      if (this.#unsaved.delete(id)) this.#look();
      const duration_ms = clock.now() - started;
      if (made) log(`${shown}: saved automatically, ${point.slice(0, 8)}`, { ...about, outcome: "ok", duration_ms });
    } catch (error) {
      const { code, message } = toCairnError(error);
      const duration_ms = clock.now() - started;
      if (code === "interrupted") throw error;
      this.#unsaved.add(id);
      this.#look();
      if (!signal.aborted)
        log(`${shown}: automatic save failed: ${message}`, {
          ...about,
          priority: "warning",
          outcome: code,
          duration_ms,
        });
      throw error;
    }
  }

  /** Returns the work of a task, with a line in the log for each run. */
  #logged(task: Task): Task["run"] {
    const { log, kept } = this.#hands;
    const clock = this.#clock;
    return async (call) => {
      const started = clock.now();
      const served = kept.state.workspaces.find(({ id }) => id === task.workspace);
      const workspace = served === undefined ? undefined : folderOf(served);
      const shown = [task.kind, workspace === undefined ? null : printablePath(workspace), task.repository]
        .filter((each) => each !== null)
        .join(" ");
      const about = { workspace, verb: task.kind };
      const tell = (error: string | null, outcome: string): void => {
        const duration_ms = clock.now() - started;
        // The run is recorded by then.
        clock.after(RECORDED_MS, () => this.#look());
        if (error === null) log(`${shown}: done as scheduled, ${duration_ms} ms`, { ...about, outcome, duration_ms });
        else log(`${shown}: ${error}`, { ...about, priority: "warning", outcome, duration_ms });
      };
      try {
        const { kind: verb, repository } = task;
        const found = await this.#hands.running.during(
          { verb, repository, place: served ?? null, caller: null },
          call.signal,
          async ({ signal, onProgress }) => {
            const ended = await task.run({ ...call, signal, onProgress });
            // A cleanup returns the failures of workspaces, also those of its cancellation.
            if ((ended ?? {}).error !== undefined) throwIfAborted(signal);
            return ended;
          },
        );
        const error = (found ?? {}).error ?? null;
        tell(error, error === null ? "ok" : "failed");
        return found;
      } catch (error) {
        const { message, code } = toCairnError(error);
        tell(call.signal.aborted ? "stopped; the next start of the daemon runs it again" : message, code);
        throw error;
      }
    };
  }

  /** Records of all runs. */
  get runs(): readonly ScheduledRun[] {
    const saves = this.#hands.kept.state.workspaces.map(({ id }) =>
      runOf({ kind: "save", workspace: id, repository: null }),
    );
    return [...saves, ...this.#scheduler.facts().map(({ run }) => run)];
  }

  /** Scheduled work that a caller may know of. `isAll`: also work that is about no single workspace. */
  facts(ids: ReadonlySet<string>, isAll: boolean): Pick<DaemonStatus, "schedules" | "retention" | "saves"> {
    const now = this.#clock.now();
    const all = this.#scheduler.facts();
    const rows = all
      .filter(({ task }) => task.kind !== "cleanup")
      .filter(({ task }) => (task.workspace === null ? isAll : ids.has(task.workspace)))
      .map((each): Row => this.#row(each, now));
    const cleanup = all.find(({ task }) => task.kind === "cleanup");
    const rules = this.#config === null ? null : saveRules(this.#config);
    return {
      saves:
        rules === null
          ? null
          : {
              when_quiet_ms: rules.quietMs,
              at_most_every_ms: rules.mostMs,
              watched: [...ids].every((id) => this.#hands.changes.tells(id)),
            },
      retention: {
        cleanup_at: cleanup?.run.ran_at ?? null,
        next_at: cleanup?.nextAt ?? null,
        ...this.#cleaned,
      },
      schedules: rows,
    };
  }

  #row({ task, run, nextAt }: ReturnType<Scheduler["facts"]>[number], now: number): Row {
    const { kind, repository, workspace, everyMs: every_ms } = task;
    const within = this.#config?.backup.find(
      (row) => row.repository === repository && row.verify_every_ms !== null,
    )?.read_all_within_ms;
    const oldest = Math.min(...(run.parts_read_at ?? [run.since]).map((at) => Date.parse(at)));
    const folder = this.#hands.kept.state.workspaces.find(({ id }) => id === workspace)?.path ?? null;
    return {
      kind: kind as Row["kind"],
      repository: repository!,
      workspace: folder,
      every_ms,
      ran_at: run.ran_at,
      good_at: run.good_at,
      error: run.error,
      next_at: nextAt,
      all_read_since: kind === "verify" && run.parts_read_at !== undefined ? new Date(oldest).toISOString() : null,
      overdue: kind === "verify" && typeof within === "number" && now - oldest > within,
    };
  }

  /** Stops running work, and starts no other. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#cancelLook();
    await Promise.all([this.#scheduler.stop(), this.#saves.stop(), this.#alarms.stop()]);
  }
}

/** Null if the configuration has no saves. */
function saveRules({ saves, limits }: DaemonConfig): SaveRules | null {
  const { when_quiet_ms: quietMs, at_most_every_ms: mostMs } = saves;
  if (quietMs === null && mostMs === null) return null;
  // An unchanged folder is checked in time too, so that the age of its last save stays below the limit.
  const idleMs = limits.save_age_ms === null ? null : limits.save_age_ms / 2;
  return { quietMs: quietMs ?? QUIET_MS, mostMs: mostMs ?? MOST_MS, idleMs };
}
