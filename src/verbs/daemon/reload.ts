import { DaemonStatus } from "../../contract/daemon.ts";
import { anything, orNull } from "../../contract/schema.ts";
import { daemonCall } from "../kinds/define.ts";

export const reload = daemonCall({
  about: "Reads the configuration again.",
  output: orNull(anything()),
  errors: ["permission"],
  by: "operators",
  passing: true,
  logged: true,
});

export const reconcile = daemonCall({
  about: "Looks at every workspace anew, and says how they are.",
  output: DaemonStatus,
  errors: ["permission"],
  by: "operators",
});
