import { HistoryOptions, HistoryResult } from "../../contract/looking.ts";
import { number, opt, text } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const history = workspaceVerb({
  about: "Lists the save points, newest first.",
  takes: [arg("workspaceName", opt(text())), arg("limit", opt(number("at most this many; 0: all")))],
  options: HistoryOptions,
  output: HistoryResult,
  command: "history",
  by: "writers",
  looks: true,
  agents: ["grep", "tag", "since", "until", "path", "all"],
  reads: true,
  run: async ({ workspace }, _name, limit, options) =>
    (await import("../../operations/history.ts")).history(workspace, limit ?? 0, options),
});
