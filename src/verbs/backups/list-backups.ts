import { LookOptions } from "../../contract/looking.ts";
import { lookErrors } from "../../contract/repositories.ts";
import { BackupList } from "../../contract/snapshots.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const listBackups = workspaceVerb({
  about: "Lists the backups of this folder, oldest first, in the repository that is kept for it.",
  options: LookOptions,
  output: BackupList,
  errors: lookErrors,
  by: "writers",
  looks: true,
  withoutFolder: true,
  run: async (hand, options) => (await import("../../look/backups.ts")).listOwnBackups(hand, options),
});
