import { repository, snapshot } from "../../contract/repositories.ts";
import { RestoreInPlaceOptions, RestoreInPlaceResult } from "../../contract/snapshots.ts";
import { arg } from "../../contract/verb.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const restoreBackup = workspaceVerb({
  about: "Imports a snapshot as a point of the workspace, then makes the folder equal to it.",
  takes: [arg("from", repository("an open repository")), arg("snapshot", snapshot())],
  options: RestoreInPlaceOptions,
  output: RestoreInPlaceResult,
  errors: ["not_found", "ambiguous", "damaged", "refused", "stale_plan"],
  command: "backup restore --in-place",
  unserved: "it takes a repository that is open in its caller's own process",
  needs: "nothing",
  run: async (...given) => (await import("../../keep/backup.ts")).restoreBackup(...given),
});
