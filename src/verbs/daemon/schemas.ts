import { BackendType, WorkspaceHealth } from "../../contract/daemon.ts";
import { flag, number, object, type Of, oneOf, orNull, rows, text } from "../../contract/schema.ts";
import { controlId, Conversion, EngineReason, WorkspaceRef } from "../../contract/words.ts";

const Backend = object({
  type: BackendType,
  selection_method: oneOf(["config-override", "persisted", "auto-detect"]),
  selected_at: text(),
  filesystem_uuid: orNull(text()),
  reason: text("the reason, as a sentence"),
  warning: orNull(text()),
});
const limit = () => orNull(number("milliseconds; null: no limit"));
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
