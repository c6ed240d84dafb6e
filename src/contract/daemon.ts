import { flag, number, object, type Of, oneOf, orNull, pick, rows, text } from "./schema.ts";
import { Conversion } from "./words.ts";

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
export const WorkspaceHealth = object({
  ...ServedWorkspace.entries,
  last_point_at: orNull(text("when its newest point was made; null where there is none, or nobody can tell now")),
  health: oneOf(["ok", "folder_gone", "control_gone", "points_missing", "failing"]),
  detail: orNull(text()),
  remedy: orNull(text("what would help, as a command or in words")),
  missing: rows(text(), "points whose content is not there now; they count again once it is back"),
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
  file_systems: rows(object({ mount: text(), type: text(), total_bytes: number(), free_bytes: number() })),
  advice: rows(text(), "sentences: what wants to be looked at"),
});
export type DaemonStatus = Of<typeof DaemonStatus>;

/** The `data` of the commands about the daemon. */
export const DAEMON_DATA = {
  daemon: object({ socket: text(), state_directory: text(), config: text() }),
  "service install": object({
    unit: orNull(text("its file; null with `--print`")),
    commands: rows(text(), "what systemd was told, or is to be told where none runs here"),
    started: flag(),
    text: orNull(text("the unit, with `--print`")),
  }),
  "service uninstall": object({ unit: text(), commands: rows(text()) }),
  "service status": DaemonStatus,
  "service reload": object({ reloaded: flag() }),
  "service unregister": object({ path: text(), control_directory: orNull(text("null: it was not kept any more")) }),
  "service recover": object({
    ...pick(ServedWorkspace, "path", "control_directory"),
    ...pick(Conversion, "original", "entries"),
  }),
};
