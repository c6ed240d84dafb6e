import { basename } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { plural } from "../formats/sizes.ts";
import type { RaisedAlarm, ScheduledRun } from "../formats/records/schedule.ts";
import { printablePath } from "../fs/paths/safe-path.ts";
import { type AlarmFacts, callAlarm } from "./alarm.ts";
import { alone, changeSchedule, readSchedule } from "./schedule.ts";

/** The present state of a job, for its alarm. */
export interface WatchedJob extends Pick<AlarmFacts, "what" | "state" | "error" | "repository"> {
  /** Null: the job is about a repository alone. */
  workspace: { id: string; path: string } | null;
  lastSuccessAt: string | null;
  /** Entries that the last good run could not read. */
  unread?: readonly string[];
}

/** Milliseconds after which an alarm that could not be called is called again. */
const RETRY_MS = 10 * 60_000;

/** Returns the state of a job from the record of its runs. `isLate`: a limit is passed. */
export function stateOf(
  { error, code = "internal", hint, unread = [] }: Partial<ScheduledRun>,
  isLate = false,
): Pick<WatchedJob, "state" | "error" | "unread"> {
  if (typeof error === "string") return { state: "failed", error: { code, message: error, hint: hint ?? null } };
  if (isLate) return { state: "late", error: null };
  if (unread.length === 0) return { state: "well", error: null };
  const few = unread.slice(0, 3).map((path) => printablePath(path));
  const message = `${plural(unread.length, "entry")} could not be read: ${few.join(", ")}${unread.length > 3 ? ", …" : ""}`;
  return { state: "partly", error: { code: "incomplete", message, hint: null }, unread };
}

/**
 * Calls `alarm` once if a job begins to fail, to be late or to lack further entries, and once if the job is well again.
 * Returns the facts that the alarm got, or null. `alarm` is null for a job without an alarm. Throws if the call fails.
 * Order: the record, the call, the record of the call. After a kill the call is repeated.
 */
export async function callIfNews(
  alarm: string | null,
  job: WatchedJob,
  {
    now = Date.now,
    signal,
    call = callAlarm,
    retryMs = RETRY_MS,
  }: {
    now?: () => number;
    signal?: AbortSignal | undefined;
    call?: typeof callAlarm;
    /** Milliseconds after which an alarm that could not be called is called again. */
    retryMs?: number;
  } = {},
): Promise<AlarmFacts | null> {
  const { what, repository, lastSuccessAt, error } = job;
  const place = { workspace: job.workspace?.id ?? null, repository };
  const keep = async (
    change: (before: RaisedAlarm | undefined) => RaisedAlarm | undefined,
  ): Promise<RaisedAlarm | undefined> => {
    let kept: RaisedAlarm | undefined;
    await changeSchedule(place, (file) => {
      const before = file.alarms.find((each) => each.what === what);
      kept = change(before);
      const others = file.alarms.filter((each) => each !== before);
      return isDeepStrictEqual(kept, before)
        ? null
        : { ...file, alarms: kept === undefined ? others : [...others, kept] };
    });
    return kept;
  };
  const isRaised = readSchedule(place).alarms.some((each) => each.what === what);
  if (!isRaised && (alarm === null || job.state === "well")) return null;
  return alone(place, `alarm-${what}`, async () => {
    const at = new Date(now()).toISOString();
    const raised = await keep((before) => (alarm === null ? undefined : following(before, job, at)));
    if (alarm === null || raised === undefined || raised.told) return null;
    const age = now() - Date.parse(raised.tried_at ?? "");
    if (age >= 0 && age < retryMs) return null;
    const facts: AlarmFacts = {
      what,
      state: raised.state,
      workspace: job.workspace && { name: basename(job.workspace.path), path: job.workspace.path },
      repository,
      since: raised.since,
      last_success_at: lastSuccessAt,
      error: raised.state === "well" ? null : error,
    };
    try {
      await call(alarm, facts, signal);
    } catch (failed) {
      // A call that was stopped is made again by the next look.
      if (signal?.aborted !== true) await keep((kept) => kept && { ...kept, tried_at: at });
      throw failed;
    }
    await keep((kept) => {
      const { tried_at: _tried, ...told } = { ...raised, ...kept, told: true };
      return raised.state === "well" ? undefined : { ...told, ...(job.unread && { known: [...job.unread] }) };
    });
    return facts;
  });
}

/** The new record of a job whose record was `before`; undefined for a job that is well and whose failure was never told. */
function following(before: RaisedAlarm | undefined, job: WatchedJob, now: string): RaisedAlarm | undefined {
  const { what, state, unread = [] } = job;
  if (before === undefined) {
    return state === "well" ? undefined : { what, state, since: now, told: false };
  }
  if (state === "well") {
    if (before.state === "well") return before;
    return before.told ? { ...before, state, told: false } : undefined;
  }
  const { known = [] } = before;
  const isKnown = before.state === "well" || (before.told && isBad(before.state) === isBad(state));
  const hasNew = state === "partly" && unread.some((entry) => !known.includes(entry));
  const next = { ...before, state, told: isKnown && !hasNew };
  return state === "partly" ? { ...next, known: known.filter((entry) => unread.includes(entry)) } : next;
}

function isBad(state: RaisedAlarm["state"]): boolean {
  return state === "failed" || state === "late";
}
