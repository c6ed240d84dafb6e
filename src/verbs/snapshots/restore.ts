import { snapshot } from "../../contract/repositories.ts";
import { place } from "../../contract/schema.ts";
import { RestoreBackupOptions, RestoreBackupResult } from "../../contract/snapshots.ts";
import { arg } from "../../contract/verb.ts";
import { repositoryVerb } from "../kinds/define.ts";

export const restore = repositoryVerb({
  about: "Restores a snapshot into an absent or empty folder, or with `overwrite` over existing files.",
  takes: [arg("snapshot", snapshot()), arg("to", place("the folder"))],
  options: RestoreBackupOptions,
  output: RestoreBackupResult,
  errors: ["already_exists", "no_space", "damaged", "stale_plan"],
  command: "backup restore",
  run: async (access, snapshot, to, options) =>
    (await import("../../backup/restore/restore.ts")).restoreBackup(access, { snapshot, to }, options),
});
