import { some, text } from "../../contract/schema.ts";
import { PathsBackupOptions, PathsBackupResult } from "../../contract/snapshots.ts";
import { arg } from "../../contract/verb.ts";
import { repositoryVerb } from "../kinds/define.ts";

export const createFromPaths = repositoryVerb({
  about:
    "Backs up several folders and files (absolute paths) as one snapshot, without a save point. Files that are unchanged since the last backup of the same paths are not read.",
  takes: [arg("paths", some(text()))],
  options: PathsBackupOptions,
  output: PathsBackupResult,
  errors: ["usage", "not_found", "refused", "no_space"],
  command: "backup create A B",
  needs: "workspaces",
  run: async (...given) => (await import("./create-from-paths.run.ts")).createFromPaths(...given),
});
