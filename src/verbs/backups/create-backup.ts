import type { BackupRepository } from "../../contract/repositories.ts";
import { custom } from "../../contract/schema.ts";
import { CreateBackupOptions, CreateBackupResult } from "../../contract/snapshots.ts";
import { arg } from "../../contract/verb.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const createBackup = workspaceVerb({
  about: "Puts a save point into a repository; the snapshot is written last. Nothing damaged is passed on.",
  takes: [
    arg(
      "into",
      custom<BackupRepository | Promise<BackupRepository>>(
        "BackupRepository | Promise<BackupRepository>",
        "an object",
        (value) => typeof value === "object" && value !== null,
        { about: "an open repository, or one that is being opened; whoever opened it closes it" },
      ),
    ),
  ],
  options: CreateBackupOptions,
  output: CreateBackupResult,
  errors: ["not_found", "damaged", "busy", "no_space", "interrupted"],
  command: "backup create",
  unserved: "it takes a repository that is open in its caller's own process",
  needs: "nothing",
  run: async (...given) => (await import("../../operations/backup.ts")).createBackup(...given),
});
