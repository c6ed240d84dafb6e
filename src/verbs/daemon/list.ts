import { WorkspaceInfo } from "../../contract/care.ts";
import { rows } from "../../contract/schema.ts";
import { daemonCall } from "../kinds/define.ts";

export const list = daemonCall({
  about: "Lists the workspaces that the caller may use.",
  output: rows(WorkspaceInfo),
  passing: true,
  agents: [],
});
