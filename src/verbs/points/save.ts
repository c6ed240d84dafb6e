import { SaveOptions, SaveResult } from "../../contract/points.ts";
import { object, pick } from "../../contract/schema.ts";
import { pointData } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const save = workspaceVerb({
  about: "Makes a save point of the folder's current state.",
  options: SaveOptions,
  output: SaveResult,
  errors: ["busy", "no_space", "refused", "detached", "interrupted"],
  command: {
    save: object({
      ...pointData,
      ...pick(SaveResult, "made", "changes", "read_bytes", "duration_ms", "left_out", "not_kept", "secrets"),
    }),
  },
  by: "writers",
  agents: ["message", "tags", "id", "cause", "onDetached", "skipUnchanged", "reread"],
  agentCause: "tool_call",
  opensPaths: ({ options }) => (options as SaveOptions | undefined)?.with !== undefined,
  makesPoint: "save",
  changesPoints: true,
  freezes: true,
  event: (saved) => (saved.made ? { type: "save", data: saved } : null),
  run: async ({ workspace }, options) => (await import("../../operations/save.ts")).save(workspace, options),
});
