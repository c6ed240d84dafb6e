import { type ErrorCode, ERROR_TABLE } from "../errors.ts";
import { WorkspaceHealth } from "./daemon.ts";
import { CleanupResult } from "./looking.ts";
import { RestoreResult, SaveResult } from "./points.ts";
import {
  anything,
  custom,
  flag,
  number,
  object,
  type Of,
  oneOf,
  opt,
  orNull,
  pick,
  record,
  rows,
  text,
} from "./schema.ts";
import { Progress, SavePoint } from "./words.ts";

/** Events of a daemon and its jobs, as its callers see them. */

export const JobState = oneOf(
  ["queued", "running", "done", "failed", "cancelled", "interrupted"],
  "`queued`: it waits for its workspace; `interrupted`: the daemon ended before it did",
);
export type JobState = Of<typeof JobState>;

const marked = object(pick(SavePoint, "save_point_id", "tags", "pinned"));
const wentBack = object(pick(RestoreResult, "restored_to", "undo_id", "changes", "method"));

/** Data of an event, by the event's type. */
export const EVENT_DATA = {
  started: object({ pid: number() }, "the daemon began to serve"),
  reset: object(
    { reason: text() },
    "events before this one are not known: look at what you follow. Where the daemon was killed, it begins with this one",
  ),
  registered: object({ created: flag("it was made a workspace by this") }),
  released: object({ control_directory: text("where its points lie") }),
  recovered: object({ original: text("the subvolume that it was; empty where it was a plain folder already") }),
  save: object(pick(SaveResult, "save_point_id", "sequence", "changes", "entries", "bytes_stored", "complete")),
  restore: wentBack,
  undo: wentBack,
  pin: marked,
  unpin: marked,
  tag: marked,
  cleanup: object({ points: number("points removed"), ...pick(CleanupResult, "bytes_freed") }),
  policy: object({}, "`policy` has it"),
  health: object(pick(WorkspaceHealth, "health", "detail", "remedy")),
  changed: object(
    { paths: number("how many paths have changed"), names: rows(text(), "some of them") },
    "something was written to the folder",
  ),
  job: object({
    job_id: text(),
    verb: text(),
    state: JobState,
    progress: orNull(Progress),
  }),
};
export type EventType = keyof typeof EVENT_DATA;
export const EVENT_TYPES = Object.keys(EVENT_DATA) as EventType[];
export type EventData = { [T in EventType]: Of<(typeof EVENT_DATA)[T]> };

/** Members of each event beside its type and data. */
export const EVENT_HEAD = {
  id: orNull(number("rises with each event; null for a job's progress, which is not kept")),
  at: text(),
  workspace: orNull(text("its folder, absolute; null for what is about no workspace")),
  workspace_id: orNull(text("32 hex digits")),
};

/** An event of one type. */
export const eventOf = <T extends EventType>(type: T) =>
  object({ ...EVENT_HEAD, type: oneOf([type]), data: EVENT_DATA[type] });

/** Something that happened in a workspace or to the daemon, in the order in which it did. */
export type ServiceEvent = {
  [T in EventType]: {
    id: number | null;
    at: string;
    workspace: string | null;
    workspace_id: string | null;
    type: T;
    data: EventData[T];
  };
}[EventType];

export const ListedJob = object({
  job_id: text("32 hex digits"),
  verb: text(),
  workspace: orNull(text("its folder, absolute")),
  state: JobState,
  progress: orNull(Progress),
  created_at: text(),
  started_at: orNull(text("when its turn came")),
  ended_at: orNull(text()),
});
export type ListedJob = Of<typeof ListedJob>;

export const JobError = object(
  {
    code: custom<ErrorCode>("ErrorCode", "a code", (value) => Object.hasOwn(ERROR_TABLE, value as string)),
    message: text(),
    hint: orNull(text()),
    retryable: flag(),
    details: opt(record()),
  },
  "null unless it has ended without an answer",
);
export type JobError = Of<typeof JobError>;

export const Job = object({
  ...ListedJob.entries,
  answer: anything("the verb's; null until it is done"),
  error: orNull(JobError),
  warnings: rows(text()),
});
export type Job = Of<typeof Job>;

export const JobList = object({
  jobs: rows(ListedJob, "the newest first"),
  next: orNull(text("what `after` is for the next page; null: that was the last")),
});
export type JobList = Of<typeof JobList>;

/** The answer where a call becomes a job. */
export const JobBegun = object(pick(ListedJob, "job_id", "state"));
export type JobBegun = Of<typeof JobBegun>;
