import { AdoptOptions, EngineOptions, ReleaseOptions, ReleaseResult, WorkspaceInfo } from "./care.ts";
import {
  anything,
  flag,
  number,
  object,
  type Of,
  oneOf,
  opt,
  orNull,
  pick,
  place,
  rows,
  some,
  span,
  text,
} from "./schema.ts";
import { arg, verb } from "./verb.ts";
import { CallOptions, controlId, Conversion, EngineReason, NamedPath, WorkspaceRef } from "./words.ts";

/** The answers of the daemon about itself; those of the verbs are theirs. */

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

/** A workspace as a daemon names it. */
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
  ),
  workspaces: opt(some(place(), "restrict the token to this folder; an `agent` token needs at least one")),
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

const folder = () => arg("workspace", place("the folder's absolute path"));
const freezeToken = () => arg("token", text("token from the `freeze` line"));
/** Calls of a daemon beside the verbs: its own affairs. */
export const DAEMON_CALLS = {
  daemon: verb({ about: "Returns the state of the daemon and of its workspaces.", output: DaemonStatus }),
  at: verb({
    about: "Returns the workspace at or above a path; null if the daemon serves none there.",
    takes: [arg("path", place("absolute"))],
    output: orNull(Reference),
    errors: ["permission"],
  }),
  register: verb({
    about: "Opens a workspace, or makes a folder one, and serves it from now on.",
    takes: [arg("path", place("absolute"))],
    options: AdoptOptions,
    output: Reference,
    errors: ["permission", "refused"],
  }),
  release: verb({
    about: "Stops serving a folder, and ends its workspace. Null: the folder was no workspace any more.",
    takes: [folder()],
    options: ReleaseOptions,
    output: orNull(ReleaseResult),
    errors: ["not_a_workspace", "permission"],
  }),
  recover: verb({
    about: "Converts a workspace back into a plain folder, and stops serving it.",
    takes: [arg("path", place("absolute"))],
    options: EngineOptions,
    output: object({ ...ServedWorkspace.entries, ...Conversion.entries }),
    errors: ["refused", "conflict", "permission"],
  }),
  list: verb({ about: "Lists the workspaces that the caller may use.", output: rows(WorkspaceInfo) }),
  reload: verb({ about: "Reads the configuration again.", output: orNull(anything()), errors: ["permission"] }),
  reconcile: verb({
    about: "Checks every workspace again, and returns their state.",
    output: DaemonStatus,
    errors: ["permission"],
  }),
  tokenCreate: verb({
    about: "Creates a token that acts for the caller. Only over the Unix socket, and not with a token.",
    options: TokenOptions,
    output: TokenCreated,
    errors: ["permission", "not_a_workspace"],
  }),
  tokenList: verb({
    about: "Lists the caller's tokens; for operators, all tokens.",
    output: rows(TokenInfo),
    errors: ["permission"],
  }),
  tokenRevoke: verb({
    about: "Revokes a token at once.",
    takes: [arg("id", text())],
    output: TokenInfo,
    errors: ["not_found", "permission"],
  }),
  freezeOffer: verb({
    about: "Offers to pause writes while the folder is saved. Lines of the stream tell when to pause and resume.",
    takes: [folder()],
    output: object({ freeze: opt(text()), thaw: opt(text()) }),
    how: "stream",
    errors: ["not_a_workspace"],
  }),
  freezeBegin: verb({
    about: "Asks every client that offered a freeze to pause its writes, for a minute at most.",
    takes: [folder()],
    output: anything(),
    errors: ["not_a_workspace"],
  }),
  frozen: verb({
    about: "Confirms that writes are paused.",
    takes: [freezeToken()],
    output: orNull(anything()),
  }),
  freezeEnd: verb({
    about: "Ends the pause that `freezeBegin` began.",
    takes: [freezeToken()],
    output: orNull(anything()),
  }),
};

/** The `data` of the commands about the daemon. */
export const DAEMON_DATA = {
  daemon: object({
    socket: text(),
    state_directory: text(),
    config: text(),
    url: orNull(text("the TCP address; null if there is none, and with `--check`")),
  }),
  "service install": object({
    unit: orNull(text("the unit's file; null with `--print`")),
    commands: rows(text(), "commands that were run for systemd, or are to be run later if systemd does not run here"),
    started: flag(),
    text: orNull(text("content of the unit, with `--print`")),
  }),
  "service uninstall": object({ unit: text(), commands: rows(text()) }),
  "service status": DaemonStatus,
  "service logs": object({ records: rows(LogRecord, "oldest first") }),
  "service reload": object({ reloaded: flag() }),
  "service token create": TokenCreated,
  "service token list": object({ tokens: rows(TokenInfo) }),
  "service token revoke": TokenInfo,
  "service unregister": object({
    path: text(),
    control_directory: orNull(text("null: the folder was no workspace any more")),
  }),
  "service recover": object({
    ...pick(ServedWorkspace, "path", "control_directory"),
    ...pick(Conversion, "original", "entries"),
  }),
};
