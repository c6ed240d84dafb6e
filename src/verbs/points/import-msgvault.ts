import { number, object, type Of, place, rows, text } from "../../contract/schema.ts";
import { CreateBackupResult, DamagedSnapshot } from "../../contract/snapshots.ts";
import { arg } from "../../contract/verb.ts";
import { SavePoint, WorkspaceCallOptions } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const MsgvaultPoints = object({
  repository_id: text(),
  points: rows(SavePoint, "one for each snapshot, oldest first; also those that an earlier call made"),
  made: number("points that this call made"),
  damaged: rows(DamagedSnapshot, "snapshots that cannot be read: the others are points all the same"),
});
export type MsgvaultPoints = Of<typeof MsgvaultPoints>;

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
