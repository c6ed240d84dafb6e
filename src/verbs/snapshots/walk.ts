import { ShowBackupOptions, lookErrors, shown } from "../../contract/repositories.ts";
import { ListedEntry } from "../../contract/words.ts";
import { repositoryVerb } from "../kinds/define.ts";

export const walk = repositoryVerb({
  about: "Lists everything below a path, each folder before its entries. Holds a shared lock meanwhile.",
  takes: shown,
  options: ShowBackupOptions,
  output: ListedEntry,
  how: "stream",
  errors: lookErrors,
  run: async (access, hand, snapshot, path, options) =>
    (await import("../../look/backups.ts")).walkBackup(access, { snapshot, path: path ?? "", hand }, options),
});
