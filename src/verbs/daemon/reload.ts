import { anything, orNull } from "../../contract/schema.ts";
import { daemonCall } from "../kinds/define.ts";
import { DaemonStatus } from "./schemas.ts";

export const reload = daemonCall({
  about: "Reads the configuration again.",
  output: orNull(anything()),
  errors: ["permission"],
  by: "operators",
  passing: true,
  logged: true,
});

export const reconcile = daemonCall({
  about: "Checks every workspace again, and returns their state.",
  output: DaemonStatus,
  errors: ["permission"],
  by: "operators",
});
