import { HistoryDaysOptions, HistoryDaysResult } from "../../contract/looking.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const historyDays = workspaceVerb({
  about: "Counts the save points of each day, newest first, with the size of the folder.",
  options: HistoryDaysOptions,
  output: HistoryDaysResult,
  command: { "history --days": HistoryDaysResult },
  by: "writers",
  looks: true,
  withoutFolder: true,
  agents: ["all"],
  run: async ({ workspace }, options) => (await import("../../look/history.ts")).historyDays(workspace, options),
});
