import { WorkspaceInfo } from "../../contract/care.ts";
import { rows } from "../../contract/schema.ts";
import { daemonCall } from "../kinds/define.ts";

export const list = daemonCall({
  about: "Lists the workspaces on which the caller may act.",
  output: rows(WorkspaceInfo),
  passing: true,
  agents: [],
});
