import { DaemonStatus } from "../../contract/daemon.ts";
import { daemonCall } from "../kinds/define.ts";

export const daemon = daemonCall({
  about: "How the daemon and its workspaces are.",
  output: DaemonStatus,
  command: "service status",
  passing: true,
  agents: [],
});
