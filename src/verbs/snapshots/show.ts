import { ShowBackupOptions, ShowBackupResult, lookErrors, shown } from "../../contract/repositories.ts";
import { number, object, text } from "../../contract/schema.ts";
import { contentData } from "../../contract/words.ts";
import { repositoryVerb } from "../kinds/define.ts";

export const show = repositoryVerb({
  about: "Lists a snapshot's entries at a path.",
  takes: shown,
  options: ShowBackupOptions,
  output: ShowBackupResult,
  errors: lookErrors,
  command: {
    "backup show": ShowBackupResult,
    "backup show SNAPSHOT:FILE": object({ ...ShowBackupResult.entries, ...contentData }),
    "backup show --to": object({
      ...ShowBackupResult.entries,
      target: text("the file, absolute"),
      bytes: number(),
    }),
  },
  run: async (access, snapshot, path, options) =>
    (await import("../../look/backups.ts")).showBackup(access, { snapshot, path: path ?? "" }, options),
});
