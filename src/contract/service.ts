import { type ErrorCode, ERROR_TABLE } from "../errors.ts";
import { WorkspaceHealth } from "./daemon.ts";
import { CleanupResult } from "./looking.ts";
import { RestoreResult, SaveResult } from "./points.ts";
import {
  anything,
  count,
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
  some,
  text,
} from "./schema.ts";
import { CallOptions, Progress, SavePoint } from "./words.ts";

/** Events of a daemon and its jobs, in the form for callers. */

export const JobState = oneOf(
  ["queued", "running", "done", "failed", "cancelled", "interrupted"],
  "`queued`: the job waits for its workspace; `interrupted`: the daemon ended before the job",
);
export type JobState = Of<typeof JobState>;

/** A call or a scheduled run, from its start to its end. */
export const RunningCall = object({
  running_id: text("16 hex digits"),
  verb: text("the call, or the kind of scheduled work, for example `backup`"),
  workspace: orNull(text("the folder, absolute")),
  repository: orNull(text("the repository of scheduled work, without a password")),
  state: oneOf(
    ["waiting", "running", "stopping", "done", "failed", "cancelled"],
    "`waiting`: for the workspace's turn; `stopping`: it was cancelled and has not ended yet",
  ),
  since: text(),
  progress: orNull(Progress),
  scheduled: flag("true: the daemon's schedule began it; false: a caller asked for it"),
  uid: number("the caller's user id; for scheduled work the daemon's"),
  pid: orNull(number("the caller's process; null: scheduled work, or a caller on TCP")),
  token: orNull(text("id of the caller's token")),
  error: orNull(object({ code: text(), message: text() })),
});
export type RunningCall = Of<typeof RunningCall>;

export const RunningCalls = object({ calls: rows(RunningCall, "the oldest first") });
export type RunningCalls = Of<typeof RunningCalls>;

export const CancelResult = object({
  ...RunningCall.entries,
  stays: text("a sentence about the state that the call leaves"),
});
export type CancelResult = Of<typeof CancelResult>;

const marked = object(pick(SavePoint, "save_point_id", "tags", "pinned"));
const wentBack = object(pick(RestoreResult, "restored_to", "undo_id", "changes", "method"));

/** Data of an event, by the event's type. */
export const EVENT_DATA = {
  started: object({ pid: number() }, "the daemon started to serve"),
  reset: object(
    { reason: text() },
    "earlier events are lost: read the state of what you follow again. After a daemon was killed, its log begins with this event",
  ),
  registered: object({ created: flag("true: this call made the folder a workspace") }),
  released: object({ control_directory: text("directory with the points") }),
  recovered: object({ original: text("path of the former subvolume; empty if the folder was a plain folder already") }),
  save: object(pick(SaveResult, "save_point_id", "sequence", "changes", "entries", "bytes_stored", "complete")),
  restore: wentBack,
  undo: wentBack,
  pin: marked,
  unpin: marked,
  tag: marked,
  cleanup: object({ points: number("number of points removed"), ...pick(CleanupResult, "bytes_freed") }),
  policy: object({}, "the policy changed; `policy` returns it"),
  health: object(pick(WorkspaceHealth, "health", "detail", "remedy")),
  changed: object(
    { paths: number("number of changed paths"), names: rows(text(), "some of these paths") },
    "files in the folder changed",
  ),
  job: object({
    job_id: text(),
    verb: text(),
    state: JobState,
    progress: orNull(Progress),
  }),
  call: RunningCall,
};
export type EventType = keyof typeof EVENT_DATA;
export const EVENT_TYPES = Object.keys(EVENT_DATA) as EventType[];
export type EventData = { [T in EventType]: Of<(typeof EVENT_DATA)[T]> };

/** Members of each event besides its type and data. */
export const EVENT_HEAD = {
  id: orNull(
    number("increases with each event; null for an event that is not stored: progress, and a call that has not failed"),
  ),
  at: text(),
  workspace: orNull(text("the workspace's folder, absolute; null if the event is about no workspace")),
  workspace_id: orNull(text("32 hex digits")),
};

/** An event of one type. */
export const eventOf = <T extends EventType>(type: T) =>
  object({ ...EVENT_HEAD, type: oneOf([type]), data: EVENT_DATA[type] });

/** An event in a workspace or the daemon. Events are in order. */
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

/** A stored event, for a list of events of all types. */
export const PastEvent = object({ ...EVENT_HEAD, type: text(), data: record("its members depend on the type") });
export type PastEvent = Of<typeof PastEvent>;

export const PastEvents = object({ events: rows(PastEvent, "newest first") });
export type PastEvents = Of<typeof PastEvents>;

export const PastEventsOptions = object({
  ...CallOptions.entries,
  types: opt(some(text(), "only events of these types; default: all")),
  limit: opt(count("the most events, at most 1000; default 100")),
});
export type PastEventsOptions = Of<typeof PastEventsOptions>;

export const ListedJob = object({
  job_id: text("32 hex digits"),
  verb: text(),
  workspace: orNull(text("the workspace's folder, absolute")),
  state: JobState,
  progress: orNull(Progress),
  created_at: text(),
  started_at: orNull(text("when the job started")),
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
  "null unless the job ended without an answer",
);
export type JobError = Of<typeof JobError>;

export const Job = object({
  ...ListedJob.entries,
  answer: anything("the verb's result; null until the job is done"),
  error: orNull(JobError),
  warnings: rows(text()),
});
export type Job = Of<typeof Job>;

export const JobList = object({
  jobs: rows(ListedJob, "newest first"),
  next: orNull(text("value of `after` for the next page; null: this is the last page")),
});
export type JobList = Of<typeof JobList>;

/** The answer to a call that becomes a job. */
export const JobBegun = object(pick(ListedJob, "job_id", "state"));
export type JobBegun = Of<typeof JobBegun>;

/** The folders in a folder, for a person who chooses one on the page of `cairn ui`. */
export interface FolderList {
  /** Absolute, without a slash at its end. */
  path: string;
  /** Names of the folders in `path`, sorted; at most 500. Hidden folders are left out. */
  folders: string[];
}

/** Coding agents in a folder, as `cairn agent status` says. */
export interface AgentsIn {
  path: string;
  agents: {
    tool: string;
    /** True: hooks of the agent save the folder, if the agent runs them. */
    covered: boolean;
    /** Places of hooks that `cairn agent install` wrote, for example `user`; empty: a tool that calls its hook by itself. */
    installed?: string[];
    /** Reason if the folder is not covered. */
    why: string | null;
    /** Time of the last prompt that a person gave the agent there, by the agent's own records; null: never, or unknown. */
    last_prompt: string | null;
    /** Time of the last hook of the agent that reached the folder, also if the hooks were removed since. */
    last_hook_at?: string | null;
    /** Reasons for missing points, and ways to mend them. */
    problems: string[];
  }[];
}

/** The outcome or the plan of `cairn agent install` or `cairn agent remove`. */
export interface InstalledAgent {
  /** Id of the plan: a hash of the files with their new content. */
  plan_id: string;
  files: {
    path: string;
    changed: boolean;
    how?: "created" | "deleted" | "edited" | "unchanged";
    /** Names of the entries that come or go, for example `hooks.Stop`. */
    entries?: string[];
  }[];
  /** True: a hook was run as it is written, and saved the folder; null: no hook was run. */
  checked: boolean | null;
  problem: string | null;
}

/** The repository that the page's server keeps for a workspace. Its password is in the file. */
export interface KeptByPage {
  repository: string;
  password_file: string;
  /** True: the repository and its password were made. */
  made: boolean;
}

/** Facts about the server of `cairn ui`. */
export interface About {
  version: string;
  /** True: calls that change something are refused. */
  read_only: boolean;
  /** The server's process. */
  pid: number;
  user: string;
  host: string;
  home: string;
  /** The workspace for which the command was started. */
  start: string | null;
  /** The view that was open last, as the fragment of its address; null if it is not known. */
  view: string | null;
  /** True: a daemon answers. */
  daemon: boolean;
  /** The reason why nothing is going to run scheduled work; null if something does or may. */
  unrun: string | null;
}
