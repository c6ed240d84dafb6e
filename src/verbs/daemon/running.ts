import { text } from "../../contract/schema.ts";
import { CancelResult, RunningCalls } from "../../contract/service.ts";
import { arg } from "../../contract/verb.ts";
import { daemonCall } from "../kinds/define.ts";

export const running = daemonCall({
  about: "Lists calls that change something and scheduled work while they run: the caller's own; for operators, all.",
  output: RunningCalls,
  command: "service running",
  passing: true,
  agents: [],
});

export const cancel = daemonCall({
  about: "Cancels a running call or scheduled work. The state is then exactly as before or as after it.",
  takes: [arg("id", text("`running_id` of the call"))],
  output: CancelResult,
  errors: ["not_found"],
  command: "service cancel",
  passing: true,
  agents: [],
  logged: true,
});
