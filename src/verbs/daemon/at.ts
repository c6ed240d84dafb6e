import { orNull, place } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { daemonCall } from "../kinds/define.ts";
import { Reference } from "./schemas.ts";

export const at = daemonCall({
  about: "Returns the workspace at or above a path; null if the daemon serves none there.",
  takes: [arg("path", place("absolute"))],
  output: orNull(Reference),
  errors: ["permission"],
  passing: true,
  agents: [],
});
