import { flag, number, object, type Of, oneOf, opt, orNull, place, rows, some, span, strict, text } from "./schema.ts";
import {
  CallOptions,
  controlId,
  Conversion,
  EngineReason,
  NamedPath,
  WorkspaceCallOptions,
  WorkspaceRef,
} from "./words.ts";
import { arg } from "./verb.ts";

/** The daemon's answers about itself; answers of verbs are in other files. */

export const BackendType = oneOf(["btrfs-base", "btrfs-loop", "plain"]);
export const Backend = object({
  type: BackendType,
  selection_method: oneOf(["config-override", "persisted", "auto-detect"]),
  selected_at: text(),
  filesystem_uuid: orNull(text()),
  reason: text("the reason, as a sentence"),
  warning: orNull(text()),
});
export const ServedWorkspace = object({
  path: text("absolute"),
  id: text("32 hex digits"),
  registered_at: text(),
  origin_backend: BackendType,
  control_directory: text("absolute"),
  subvolume_uuid: orNull(text()),
  points: number("number of points at the last count"),
  owner_uid: opt(number("user id of the folder's owner when it was registered")),
});
const limit = () => orNull(number("milliseconds; null: no limit"));
export const WorkspaceHealth = object({
  ...ServedWorkspace.entries,
  last_point_at: orNull(text("when the newest point was made; null if there is none, or it is unknown")),
  health: oneOf(["ok", "folder_gone", "control_gone", "points_missing", "failing"]),
  detail: orNull(text()),
  remedy: orNull(text("how to fix it: a command or a sentence")),
  missing: rows(text(), "points whose content is missing now; they are usable again once the content is back"),
  last_save_at: orNull(text("when the newest point was made, or the folder was last found equal to it")),
  last_backup_at: orNull(text("when the last scheduled backup succeeded, with or without changes")),
  last_proof_at: orNull(
    text("when a restore check, or the verification of a repository with its backups, last passed"),
  ),
  overdue: rows(oneOf(["save", "backup", "proof"]), "ages that exceed their limit"),
});
export const DaemonStatus = object({
  pid: number(),
  started_at: text(),
  unclean_shutdown: orNull(text("set if the previous daemon was killed")),
  backend: Backend,
  state_file: text(),
  config_file: text(),
  socket: text(),
  workspaces: rows(WorkspaceHealth, "the workspaces that the caller may use"),
  retention: object({
    cleanup_at: orNull(text("when the keep rules last removed points")),
    next_at: orNull(text()),
    removed: number("points removed in the last cleanup"),
    failed: rows(text(), "workspaces for which the last cleanup failed, with the reason"),
  }),
  saves: orNull(
    object({
      when_quiet_ms: number(),
      at_most_every_ms: number(),
      watched: flag(
        "false: changes of some workspaces cannot be watched; they are scanned at the `at_most_every_ms` interval",
      ),
    }),
  ),
  schedules: rows(
    object({
      kind: oneOf(["backup", "verify", "restore-check", "prune"]),
      repository: text("the repository's address, without a password"),
      workspace: orNull(text("the workspace's folder; null: the whole repository")),
      every_ms: number(),
      ran_at: orNull(text("when the last run ended")),
      good_at: orNull(text("when the last successful run ended")),
      error: orNull(text("error of the last run; null: it succeeded, or there was no run")),
      next_at: orNull(text("null: a run is in progress")),
      all_read_since: orNull(text("for a verification: every pack that existed at this time was read since then")),
      overdue: flag("for a verification: some packs were not read within the required time"),
    }),
    "scheduled work",
  ),
  limits: object({ save_age_ms: limit(), backup_age_ms: limit(), proof_age_ms: limit() }),
  overdue: rows(text(), "exceeded limits, one sentence each. Not empty: `cairn service status` exits 4"),
  file_systems: rows(object({ mount: text(), type: text(), total_bytes: number(), free_bytes: number() })),
  advice: rows(text(), "problems to look at, one sentence each"),
});
export type DaemonStatus = Of<typeof DaemonStatus>;

export const LogRecord = object({
  time: text(),
  priority: number("syslog's priority: 3 error, 4 warning, 6 information"),
  message: text(),
  pid: orNull(number()),
  workspace: orNull(text()),
  verb: orNull(text()),
  uid: orNull(number("user id of the caller")),
  duration_ms: orNull(number()),
  outcome: orNull(text("`ok`, or the code of an error")),
});
export type LogRecord = Of<typeof LogRecord>;

/** A workspace in the daemon's form. */
export const Reference = object({
  workspace: WorkspaceRef,
  control_id: controlId(),
  created: flag("true: this call made the folder a workspace"),
  engine_reasons: rows(EngineReason),
  followed_from: orNull(text()),
  conversion: orNull(Conversion),
});
export type Reference = Of<typeof Reference>;

export const TokenOptions = object({
  ...CallOptions.entries,
  kind: opt(
    oneOf(
      ["agent", "person"],
      "`agent` (default): can save, compare, restore and fork, but cannot delete data or change settings; `person`: has all rights of its creator",
    ),
    {
      flags: "--agent",
      text: "the token can save, compare, restore and fork, but cannot delete data (default)",
      value: "agent",
    },
    { flags: "--person", text: "the token has all your rights", value: "person" },
  ),
  workspaces: opt(
    some(place(), "restrict the token to this folder; an `agent` token needs at least one"),
    "--workspace <dir>",
  ),
  expires: opt(span("how long the token is valid, from 1h to 366d; default 30d")),
  name: opt(text("purpose of the token, at most 200 characters")),
});
export type TokenOptions = Of<typeof TokenOptions>;
export const TokenInfo = object({
  token_id: text("16 hex digits"),
  name: text(),
  kind: oneOf(["agent", "person"]),
  uid: number("user id that the token acts for"),
  created_at: text(),
  expires_at: text(),
  workspaces: orNull(rows(NamedPath, "folders that the token is restricted to; null: all of the user's workspaces")),
});
export type TokenInfo = Of<typeof TokenInfo>;
export const TokenCreated = object({
  ...TokenInfo.entries,
  token: text("the secret that requests send; it is shown only now"),
});
export type TokenCreated = Of<typeof TokenCreated>;

export const folder = () => arg("workspace", place("the folder's absolute path"));
export const freezeToken = () => arg("token", text("token from the `freeze` line"));

// ---------------------------------------------------------------------------------------------- schedule

export const ScheduledKind = oneOf(["save", "backup", "verify", "restore-check", "prune"]);
const RunError = orNull(object({ code: text(), message: text(), hint: orNull(text()) }));
const repositoryOrNone = () => orNull(text("address of the repository, without a password; null: none is involved"));

export const DueOptions = object({ ...WorkspaceCallOptions.entries });
export type DueOptions = Of<typeof DueOptions>;
export const DueResult = object({
  ran: rows(object({ kind: ScheduledKind, repository: repositoryOrNone(), error: RunError }), "the work that was due"),
  save_point_id: orNull(text("the point that was made; null: nothing was due or had changed")),
  snapshot_id: orNull(text("the snapshot that was made; null: nothing was due or had changed")),
  removed: rows(text(), "snapshots that the kept rules no longer keep"),
  partly: flag("true: the point or the snapshot lacks a part of the folder, or a command after it failed: exit 10"),
});
export type DueResult = Of<typeof DueResult>;

export const ScheduleRow = object({
  kind: ScheduledKind,
  repository: repositoryOrNone(),
  every_ms: number(),
  ran_at: orNull(text("when the last run ended")),
  good_at: orNull(text("when the last good run ended")),
  next_at: text("when the next run is due; a past time: as soon as possible"),
  failing_since: orNull(text("when the first of the runs ended that failed since the last good one")),
  failures: number("failed runs since the last good one"),
  error: RunError,
});
export type ScheduleRow = Of<typeof ScheduleRow>;
export const Schedule = object({
  workspace: WorkspaceRef,
  last_save_at: orNull(text("when the newest point was made, or the folder was last found equal to it")),
  last_backup_at: orNull(text("when the newest backup succeeded, with or without changes")),
  last_verify_at: orNull(text("when a repository of the folder was last verified without finding damage")),
  last_proof_at: orNull(text("when a restore of the newest backup last had the state digest of its save")),
  next_at: orNull(text("when the next work is due; null: nothing is scheduled")),
  runs: rows(ScheduleRow, "scheduled work on the folder"),
  problems: rows(text(), "work that fails or is late, one sentence each"),
});
export type Schedule = Of<typeof Schedule>;

const every = (what: string, name: string, usual: string) =>
  opt(orNull(text(`time between two ${what}, for example 12h or 7d; null or '': as usual, ${usual}`)), {
    flags: `--${name} <time>`,
    text: `time between two ${what}, e.g. 30m, 12h or 7d ('': as usual, ${usual})`,
  });
export const ScheduleEdit = strict(
  {
    save: every("saves", "save", "1h"),
    backup: every("backups", "backup", "1d"),
    verify: every("verifications of the repository", "verify", "never"),
    restoreCheck: every("restores of the newest backup as a test", "restore-check", "never"),
    prune: every("removals of snapshots by the rules of `backup use`", "prune", "1d"),
  },
  "an absent member stays as it is",
);
export type ScheduleEdit = Of<typeof ScheduleEdit>;
