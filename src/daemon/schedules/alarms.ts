import { isDeepStrictEqual } from "node:util";
import { toCairnError } from "../../errors.ts";
import type { RaisedAlarm, ScheduledRun, ServedWorkspace } from "../../formats/records/daemon-state.ts";
import {
  type AlarmFacts,
  type AlarmJob,
  alarmText,
  alarmWorkspace,
  type callAlarm,
} from "../../operations/kept/alarm.ts";
import type { Log } from "../log/log.ts";
import type { KeptState } from "../state/kept-state.ts";
import { keyOf } from "./scheduler.ts";

/** The present state of a job, for the alarm. */
export interface WatchedJob extends Pick<AlarmFacts, "state" | "error" | "repository"> {
  what: AlarmJob;
  /** Null: the job is about a repository alone. */
  workspace: ServedWorkspace | null;
  lastSuccessAt: string | null;
}

/** Returns the error of a task's last run, or null. */
export function errorOf(run: ScheduledRun | undefined): AlarmFacts["error"] {
  const { error = null, code = "internal", hint = null } = run ?? {};
  return error === null ? null : { code, message: error, hint };
}

export function stateOf(error: AlarmFacts["error"], isLate: boolean): AlarmFacts["state"] {
  if (error !== null) return "failed";
  return isLate ? "late" : "well";
}

/** Milliseconds after which an alarm that could not be called is called again. */
const RETRY_MS = 10 * 60_000;

interface Options {
  kept: KeptState;
  log: Log;
  call: typeof callAlarm;
  now: () => number;
}

/**
 * Calls the alarm once when a job begins to fail or to be late, and once when the job is well again. Order: the record in the state,
 * the call, then the record that the call was made. A kill in between repeats the call at the next start.
 */
export class Alarms {
  readonly #options: Options;
  readonly #stopped = new AbortController();
  /** The state's records. Kept here too if the state cannot be written, for example because the disk is full. */
  #raised: readonly RaisedAlarm[];
  #next: { jobs: readonly WatchedJob[]; alarm: string | null } | null = null;
  #failed: { alarm: string; at: number } | null = null;
  #isWorking = false;
  #working = Promise.resolve();

  constructor(options: Options) {
    this.#options = options;
    this.#raised = options.kept.state.schedules.alarms ?? [];
  }

  /** Compares `jobs`, the complete list, with the records. Returns before the alarm is called. `alarm` null: there is no alarm. */
  judge(jobs: readonly WatchedJob[], alarm: string | null): void {
    this.#next = { jobs, alarm };
    if (!this.#isWorking) this.#working = this.#work();
  }

  async #work(): Promise<void> {
    this.#isWorking = true;
    while (this.#next !== null && !this.#stopped.signal.aborted) {
      const { jobs, alarm } = this.#next;
      this.#next = null;
      const since = new Date(this.#options.now()).toISOString();
      const before = new Map(this.#raised.map((raised) => [alarmKey(raised), raised]));
      const wanted = alarm === null ? [] : jobs;
      this.#keep(wanted.flatMap((job) => following(before.get(alarmKey(namesOf(job))), job, since)));
      for (const raised of this.#raised.filter(({ told }) => !told)) {
        if (this.#mustWait(alarm!) || this.#stopped.signal.aborted) break;
        await this.#tell(
          alarm!,
          raised,
          jobs.find((job) => alarmKey(namesOf(job)) === alarmKey(raised))!,
        );
      }
    }
    this.#isWorking = false;
  }

  /** True for some minutes after a failed call, so that an absent receiver is not called too often. */
  #mustWait(alarm: string): boolean {
    const age = this.#failed?.alarm === alarm ? this.#options.now() - this.#failed.at : Infinity;
    return age >= 0 && age < RETRY_MS;
  }

  async #tell(alarm: string, raised: RaisedAlarm, job: WatchedJob): Promise<void> {
    const { log, call } = this.#options;
    const { what, repository, workspace, lastSuccessAt, error } = job;
    const facts: AlarmFacts = {
      what,
      state: raised.state,
      workspace: workspace === null ? null : alarmWorkspace(workspace.path),
      repository,
      since: raised.since,
      last_success_at: lastSuccessAt,
      error,
    };
    try {
      await call(alarm, facts, this.#stopped.signal);
      this.#failed = null;
      log(`the alarm was called: ${alarmText(facts)}`);
    } catch (failed) {
      // The next start calls the alarm.
      if (this.#stopped.signal.aborted) return;
      this.#failed = { alarm, at: this.#options.now() };
      const { message } = toCairnError(failed);
      log(`${message}; it is called again in ${RETRY_MS / 60_000} minutes to tell: ${alarmText(facts)}`, {
        priority: "error",
      });
      return;
    }
    this.#keep(
      this.#raised.flatMap((each) =>
        each !== raised ? [each] : raised.state === "well" ? [] : [{ ...raised, told: true }],
      ),
    );
  }

  #keep(alarms: readonly RaisedAlarm[]): void {
    if (isDeepStrictEqual(alarms, this.#raised)) return;
    const { kept, log } = this.#options;
    this.#raised = alarms;
    try {
      kept.change({ schedules: { ...kept.state.schedules, alarms: [...alarms] } });
    } catch (error) {
      log(`cannot record which alarms were called: ${toCairnError(error).message}`, { priority: "warning" });
    }
  }

  /** Stops a running call, and starts no other. */
  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#working;
  }
}

type AlarmName = Pick<RaisedAlarm, "what" | "workspace" | "repository">;

function alarmKey({ what, workspace, repository }: AlarmName): string {
  return keyOf({ kind: what, workspace, repository });
}

function namesOf({ what, workspace, repository }: WatchedJob): AlarmName {
  return { what, workspace: workspace?.id ?? null, repository };
}

/** The new record of a job whose record was `before`; empty for a job that is well and whose failure was never told. */
function following(before: RaisedAlarm | undefined, job: WatchedJob, now: string): RaisedAlarm[] {
  const { state } = job;
  if (before === undefined) return state === "well" ? [] : [{ ...namesOf(job), state, since: now, told: false }];
  if (state !== "well") return [{ ...before, state, told: before.told || before.state === "well" }];
  if (before.state === "well") return [before];
  return before.told ? [{ ...before, state, told: false }] : [];
}
