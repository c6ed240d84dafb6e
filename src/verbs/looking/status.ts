import { StatusResult } from "../../contract/looking.ts";
import { WorkspaceCallOptions } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const status = workspaceVerb({
  about: "Returns the changes since head, and the state of the workspace's points, store and backups.",
  options: WorkspaceCallOptions,
  output: StatusResult,
  command: "status",
  by: "writers",
  looks: true,
  agents: [],
  seals: true,
  reads: true,
  addsWatched: true,
  run: async ({ workspace, unsealed }, options) => {
    const { currentReasons } = await import("../../operations/engine.ts");
    const reasons = await currentReasons(workspace.found, options);
    return (await import("../../operations/status.ts")).status(workspace, { ...options, unsealed }, reasons);
  },
});
