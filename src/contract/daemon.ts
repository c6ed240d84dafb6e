import { number, object, oneOf, opt, orNull, place, rows, text } from "./schema.ts";
import { arg } from "./verb.ts";

/** The daemon's answers about itself; answers of verbs are in other files. */

export const BackendType = oneOf(["btrfs-base", "btrfs-loop", "plain"]);
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

export const folder = () => arg("workspace", place("the folder's absolute path"));
export const freezeToken = () => arg("token", text("token from the `freeze` line"));

// ---------------------------------------------------------------------------------------------- schedule
