import { flag, number, object, type Of, oneOf, opt, orNull, place, rows, some, span, text } from "./schema.ts";
import { CallOptions, controlId, Conversion, EngineReason, NamedPath, WorkspaceRef } from "./words.ts";
import { arg } from "./verb.ts";

/** The answers of the daemon about itself; those of the verbs are theirs. */

export const BackendType = oneOf(["btrfs-base", "btrfs-loop", "plain"]);
export const Backend = object({
  type: BackendType,
  selection_method: oneOf(["config-override", "persisted", "auto-detect"]),
  selected_at: text(),
  filesystem_uuid: orNull(text()),
  reason: text("a sentence"),
  warning: orNull(text()),
});
export const ServedWorkspace = object({
  path: text("absolute"),
  id: text("32 hex digits"),
  registered_at: text(),
  origin_backend: BackendType,
  control_directory: text("absolute"),
  subvolume_uuid: orNull(text()),
  points: number("when they were counted last"),
});
const limit = () => orNull(number("milliseconds; null: no limit"));
export const WorkspaceHealth = object({
  ...ServedWorkspace.entries,
  last_point_at: orNull(text("when its newest point was made; null where there is none, or nobody can tell now")),
  health: oneOf(["ok", "folder_gone", "control_gone", "points_missing", "failing"]),
  detail: orNull(text()),
  remedy: orNull(text("what would help, as a command or in words")),
  missing: rows(text(), "points whose content is not there now; they count again once it is back"),
  last_save_at: orNull(text("when the folder was last seen to be as its newest point, or that was made")),
  last_backup_at: orNull(text("when a scheduled backup was last good, also one that found nothing new")),
  last_proof_at: orNull(text("when a restore check, or a verification of a repository that it is in, last passed")),
  overdue: rows(oneOf(["save", "backup", "proof"]), "limits on these ages that are passed"),
});
export const DaemonStatus = object({
  pid: number(),
  started_at: text(),
  unclean_shutdown: orNull(text("the daemon before this one, which was killed")),
  backend: Backend,
  state_file: text(),
  config_file: text(),
  socket: text(),
  workspaces: rows(WorkspaceHealth, "those that the caller may act on"),
  retention: object({
    cleanup_at: orNull(text("when points were removed by the keep rules last")),
    next_at: orNull(text()),
    removed: number("points, in the last cleanup"),
    failed: rows(text(), "workspaces at which the last cleanup failed, and why"),
  }),
  saves: orNull(
    object({
      when_quiet_ms: number(),
      at_most_every_ms: number(),
      watched: flag(
        "false: of some nobody tells changes, so that a save of those is tried as often as changes may go unsaved",
      ),
    }),
  ),
  schedules: rows(
    object({
      kind: oneOf(["backup", "verify", "restore-check", "prune"]),
      repository: text("where it lies; never with a password in it"),
      workspace: orNull(text("its folder; null: the repository as a whole")),
      every_ms: number(),
      ran_at: orNull(text("when the last run ended")),
      good_at: orNull(text("when the last good run ended")),
      error: orNull(text("of the last run; null: it was good, or there was none")),
      next_at: orNull(text("null: it is under way")),
      all_read_since: orNull(text("of a verification: every pack that was there then was read since")),
      overdue: flag("of a verification: some packs were not read for longer than they may be"),
    }),
    "what is done by the clock",
  ),
  limits: object({ save_age_ms: limit(), backup_age_ms: limit(), proof_age_ms: limit() }),
  overdue: rows(text(), "sentences: limits that are passed. Not empty: `cairn service status` exits 4"),
  file_systems: rows(object({ mount: text(), type: text(), total_bytes: number(), free_bytes: number() })),
  advice: rows(text(), "sentences: what wants to be looked at"),
});
export type DaemonStatus = Of<typeof DaemonStatus>;

export const LogRecord = object({
  time: text(),
  priority: number("as syslog has it: 3 error, 4 warning, 6 information"),
  message: text(),
  pid: orNull(number()),
  workspace: orNull(text()),
  verb: orNull(text()),
  uid: orNull(number("of whoever asked for it")),
  duration_ms: orNull(number()),
  outcome: orNull(text("`ok`, or the code of an error")),
});
export type LogRecord = Of<typeof LogRecord>;

/** A workspace as a daemon names it. */
export const Reference = object({
  workspace: WorkspaceRef,
  control_id: controlId(),
  created: flag("true: this call made it a workspace"),
  engine_reasons: rows(EngineReason),
  followed_from: orNull(text()),
  conversion: orNull(Conversion),
});
export type Reference = Of<typeof Reference>;

export const TokenOptions = object({
  ...CallOptions.entries,
  kind: opt(
    oneOf(["agent", "person"], "`agent` (default): it can lose nothing and weaken nothing; `person`: as its maker"),
  ),
  workspaces: opt(some(place(), "a folder to which it is narrowed; an agent's names one or more")),
  expires: opt(span("how long it counts, from 1h to 366d; default 30d")),
  name: opt(text("what it is for, at most 200 characters")),
});
export type TokenOptions = Of<typeof TokenOptions>;
export const TokenInfo = object({
  token_id: text("16 hex digits"),
  name: text(),
  kind: oneOf(["agent", "person"]),
  uid: number("of the user for whom it acts"),
  created_at: text(),
  expires_at: text(),
  workspaces: orNull(rows(NamedPath, "to which it is narrowed; null: all of the user's")),
});
export type TokenInfo = Of<typeof TokenInfo>;
export const TokenCreated = object({ ...TokenInfo.entries, token: text("what a request sends; it is told this once") });
export type TokenCreated = Of<typeof TokenCreated>;

export const folder = () => arg("workspace", place("the folder's absolute path"));
export const freezeToken = () => arg("token", text("of the line that told it"));
