import { LookOptions, ShowOptions } from "../../contract/looking.ts";
import { lookErrors, ShowBackupResult, shown } from "../../contract/repositories.ts";
import { object } from "../../contract/schema.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const showBackup = workspaceVerb({
  about: "Lists the entries at a path of a backup of this folder, by default at its root.",
  takes: shown,
  options: object({ ...ShowOptions.entries, ...LookOptions.entries }),
  output: ShowBackupResult,
  errors: lookErrors,
  by: "writers",
  looks: true,
  withoutFolder: true,
  run: async (hand, snapshot, path, options) =>
    (await import("../../look/backups.ts")).showOwnBackup(hand, { snapshot, path: path ?? "" }, options),
});
