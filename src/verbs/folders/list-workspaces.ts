import { WorkspaceInfo } from "../../contract/care.ts";
import { object, rows, text } from "../../contract/schema.ts";
import { CallOptions, SavePoint } from "../../contract/words.ts";
import { libraryVerb } from "../kinds/define.ts";

export const listWorkspaces = libraryVerb({
  about: "Lists the workspaces in the user's registry.",
  options: CallOptions,
  output: rows(WorkspaceInfo),
  command: {
    workspaces: object({ workspaces: rows(WorkspaceInfo) }),
    "workspaces --points": object({
      save_points: rows(object({ workspace: text("the workspace's folder, absolute"), ...SavePoint.entries })),
    }),
  },
  run: async ({ parts }, options) => (await import("./list-workspaces.run.ts")).listWorkspaces(parts, options),
});
