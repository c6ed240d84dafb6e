import { ShowBackupOptions, lookErrors, shown } from "../../contract/repositories.ts";
import { ListedEntry } from "../../contract/words.ts";
import { repositoryVerb } from "../kinds/define.ts";

export const walk = repositoryVerb({
  about: "Lists everything below a path, each folder before what lies in it; a shared lock is held meanwhile.",
  takes: shown,
  options: ShowBackupOptions,
  output: ListedEntry,
  how: "stream",
  errors: lookErrors,
  run: async (access, hand, snapshot, path, options) =>
    (await import("../../backup/show.ts")).walkBackup(access, { snapshot, path: path ?? "", hand }, options),
});
