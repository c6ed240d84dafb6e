import { place } from "../../contract/schema.ts";
import { PastEvents, PastEventsOptions } from "../../contract/service.ts";
import { arg } from "../../contract/verb.ts";
import { daemonCall } from "../kinds/define.ts";

export const pastEvents = daemonCall({
  about: "Lists stored events of a workspace that the caller may hear of, for example saves and calls that failed.",
  takes: [arg("path", place("absolute"))],
  options: PastEventsOptions,
  output: PastEvents,
  errors: ["not_a_workspace", "permission"],
  passing: true,
  agents: ["types", "limit"],
});
