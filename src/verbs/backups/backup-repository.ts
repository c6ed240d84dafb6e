import { BackupRetention } from "../../contract/looking.ts";
import { KeptPlace, KeptRepository, KeptRepositoryEdit } from "../../contract/repositories.ts";
import { object, orNull } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { WorkspaceCallOptions, WorkspaceRef, inSnakeCase } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const backupRepository = workspaceVerb({
  about: "Returns a workspace's backup repository, or null. A repository that another user set is `refused`.",
  options: WorkspaceCallOptions,
  output: orNull(KeptRepository),
  errors: ["refused"],
  by: "operators",
  looks: true,
  run: async ({ workspace }) => (await import("../../keep/kept-repository.ts")).backupRepository(workspace),
});

export const setBackupRepository = workspaceVerb({
  about: "Remembers a repository for the backups of a workspace, never its password. Null removes it.",
  takes: [arg("kept", orNull(KeptRepositoryEdit))],
  options: WorkspaceCallOptions,
  output: orNull(KeptRepository),
  errors: ["usage"],
  command: {
    "backup use": object({
      workspace: WorkspaceRef,
      kept: orNull(
        object({
          ...KeptPlace.entries,
          on_failure: KeptRepository.entries.on_failure,
          probe: KeptRepository.entries.probe,
          good_at: KeptRepository.entries.good_at,
          retention: orNull(object(inSnakeCase(BackupRetention.entries))),
        }),
      ),
    }),
  },
  by: "operators",
  run: async ({ workspace }, edit, options) =>
    (await import("../../keep/kept-repository.ts")).setBackupRepository(workspace, edit, options),
});
