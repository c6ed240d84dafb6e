import { daemonCall } from "../kinds/define.ts";
import { DaemonStatus } from "./schemas.ts";

export const daemon = daemonCall({
  about: "Returns the state of the daemon and of its workspaces.",
  output: DaemonStatus,
  passing: true,
  agents: [],
});
