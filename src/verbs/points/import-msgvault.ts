import { MsgvaultPoints } from "../../contract/msgvault.ts";
import { object, place, rows } from "../../contract/schema.ts";
import { CreateBackupResult } from "../../contract/snapshots.ts";
import { arg } from "../../contract/verb.ts";
import { WorkspaceCallOptions } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const importMsgvaultPoints = workspaceVerb({
  about:
    "Makes a save point of each snapshot of a msgvault repository, with its own time and tag. The folder itself is not changed; snapshots that are points already are skipped.",
  takes: [arg("from", place("a msgvault repository"))],
  options: WorkspaceCallOptions,
  output: MsgvaultPoints,
  errors: ["not_found", "damaged", "newer_version", "unsupported", "no_space"],
  command: {
    "save --from-msgvault": MsgvaultPoints,
    "backup create --from-msgvault": object({ ...MsgvaultPoints.entries, backups: rows(CreateBackupResult) }),
  },
  by: "operators",
  changesPoints: true,
  run: async ({ workspace }, from, options) =>
    (await import("./import-msgvault.run.ts")).importMsgvaultPoints(workspace, from, options),
});
