import { LookOptions } from "../../contract/looking.ts";
import { throughSqlite } from "../../contract/points.ts";
import { lookErrors, snapshot } from "../../contract/repositories.ts";
import { object } from "../../contract/schema.ts";
import { RestoreInPlaceOptions, RestoreInPlaceResult } from "../../contract/snapshots.ts";
import { arg } from "../../contract/verb.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const restoreFromBackup = workspaceVerb({
  about:
    "Saves the current state, then makes the folder, or some paths of it, equal to a backup in the repository that is kept for it.",
  takes: [arg("snapshot", snapshot())],
  options: object({ ...RestoreInPlaceOptions.entries, ...LookOptions.entries }),
  output: RestoreInPlaceResult,
  errors: [...lookErrors, "refused", "stale_plan"],
  by: "operators",
  opensPaths: throughSqlite,
  makesPoint: "undo",
  changesPoints: true,
  event: (done) => (done.dry_run || done.restored_to === null ? null : { type: "restore", data: done }),
  run: async (hand, wanted, options) =>
    (await import("./restore-from-backup.run.ts")).restoreFromBackup(hand, wanted, options),
});
