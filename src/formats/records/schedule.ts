import { Fields } from "../fields.ts";
import { decodeRecord, encodeChecked, encodeRecord } from "./record.ts";

/** Kinds of scheduled work. */
export const SCHEDULED = ["save", "cleanup", "backup", "verify", "restore-check", "prune"] as const;
export type ScheduledKind = (typeof SCHEDULED)[number];

/**
 * `schedule/<hash>.json` of a user's state directory: when the work on a folder, on a repository, or on a folder in a
 * repository last ran, and which alarms were called. The daemon, the timer and backups by hand all write it.
 */
export interface ScheduleFile {
  /** Id of the workspace; null if the work is not about a single one. */
  workspace: string | null;
  /** Location of the repository, without secrets; null if the work uses none. */
  repository: string | null;
  runs: ScheduledRun[];
  alarms: RaisedAlarm[];
  /** Milliseconds between two runs that a person set, by kind. 0: never. */
  every?: Record<string, number>;
}

/** The last times of one scheduled job. */
export interface ScheduledRun {
  /** One of `SCHEDULED`, or a kind of a later version. */
  kind: string;
  repository: string | null;
  workspace: string | null;
  /** Time at which the job was first due. */
  since: string;
  /** Time at which the last run succeeded or failed. Runs that were stopped do not count. */
  ran_at: string | null;
  /** End of the last successful run. */
  good_at: string | null;
  /** Error of the last run; null if it succeeded, or if there was none. */
  error: string | null;
  /** Code and hint of `error`; absent if it has none. */
  code?: string;
  hint?: string;
  /** Number of failed runs since the last good one, and the time of the first; absent after a good run. */
  failures?: number;
  failing_since?: string;
  /** Entries that the last good run could not read, at most 100; absent if there were none. */
  unread?: string[];
  /** Time at which a prune runs again for its second look, if that is before its next run. */
  again_at?: string;
  /** Times at which each part of the packs was last verified, or first due to be. */
  parts_read_at?: string[];
}

/** A job that fails or is late, and whether the alarm was called. */
export interface RaisedAlarm {
  /** `proof`, or a kind of scheduled work. */
  what: string;
  /** `partly`: some entries were not read. `well` stays only until the alarm was called. */
  state: "failed" | "late" | "partly" | "well";
  since: string;
  /** True if the alarm was called for this state. */
  told: boolean;
  /** Time of the last call that failed; absent if none did. */
  tried_at?: string;
  /** Entries of which the alarm was told that they are not read. */
  known?: string[];
}

const FORMAT = "cairn.schedule";
const VERSION = 1;

export function encodeSchedule(file: ScheduleFile): Uint8Array {
  return encodeChecked(file, (value) => encodeRecord(value, FORMAT, VERSION), decodeSchedule);
}

/** Throws `damaged`, naming the field, or `newer_version`; unknown fields stay. */
export function decodeSchedule(bytes: Uint8Array): ScheduleFile {
  const { value, fields } = decodeRecord(bytes, FORMAT, VERSION);
  checkPlace(fields);
  fields.list("runs", checkRun, 1000);
  fields.list("alarms", checkAlarm, 1000);
  if (fields.has("every")) {
    const every = fields.object("every");
    for (const kind of SCHEDULED) every.optionalInteger(kind);
  }
  return value as unknown as ScheduleFile;
}

function checkPlace(fields: Fields): void {
  if (!fields.isNull("repository")) fields.text("repository");
  if (!fields.isNull("workspace")) fields.hex("workspace", 32);
}

function checkRun(element: unknown, label: string): void {
  const fields = new Fields(element, label);
  fields.text("kind", 100);
  checkPlace(fields);
  fields.time("since");
  for (const key of ["ran_at", "good_at"]) if (!fields.isNull(key)) fields.time(key);
  if (!fields.isNull("error")) fields.text("error");
  for (const key of ["code", "hint"]) fields.optionalText(key);
  fields.optionalInteger("failures");
  for (const key of ["again_at", "failing_since"]) if (fields.has(key)) fields.time(key);
  if (fields.has("unread")) fields.texts("unread");
  if (fields.has("parts_read_at"))
    fields.list("parts_read_at", (at, part) => new Fields({ at }, part).time("at"), 1 << 20);
}

function checkAlarm(element: unknown, label: string): void {
  const fields = new Fields(element, label);
  const state = fields.text("state", 100);
  fields.text("what", 100);
  if (!["failed", "late", "partly", "well"].includes(state)) throw fields.wrong("state", "a state of an alarm");
  for (const key of ["since", "tried_at"]) if (key === "since" || fields.has(key)) fields.time(key);
  fields.boolean("told");
  if (fields.has("known")) fields.texts("known");
}
