import { DaemonStatus } from "../../contract/daemon.ts";
import { daemonCall } from "../kinds/define.ts";

export const daemon = daemonCall({
  about: "Returns the state of the daemon and of its workspaces.",
  output: DaemonStatus,
  command: "service status",
  passing: true,
  agents: [],
});
