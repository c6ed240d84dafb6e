import type { BackupRepository } from "../../contract/repositories.ts";
import { custom } from "../../contract/schema.ts";
import { CreateBackupOptions, CreateBackupResult } from "../../contract/snapshots.ts";
import { arg } from "../../contract/verb.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const createBackup = workspaceVerb({
  about: "Backs a save point up into a repository. The snapshot is written last, and damaged data is never passed on.",
  takes: [
    arg(
      "into",
      custom<BackupRepository | Promise<BackupRepository>>(
        "BackupRepository | Promise<BackupRepository>",
        "an object",
        (value) => typeof value === "object" && value !== null,
        { about: "an open repository, or the promise of one; the caller closes it" },
      ),
    ),
  ],
  options: CreateBackupOptions,
  output: CreateBackupResult,
  errors: ["not_found", "damaged", "busy", "no_space", "interrupted"],
  command: "backup create",
  unserved: "it takes a repository that is open in its caller's own process",
  needs: "nothing",
  run: async (...given) => (await import("../../keep/backup.ts")).createBackup(...given),
});
