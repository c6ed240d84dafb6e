import { FEW, optionsOf, RECENT, type Tool, when } from "../kinds/tool.ts";
import { HistoryOptions, HistoryResult } from "../../contract/looking.ts";
import { number, opt, pick, text } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { workspaceVerb } from "../kinds/define.ts";

const tool: Tool = {
  title: "List the save points",
  about: "Lists the save points, newest first.",
  takes: {
    ...pick(HistoryOptions, "grep", "tag", "since", "until", "path", "all"),
    ...FEW,
  },
  output: HistoryResult,
  changes: false,
  async run(client, given, options) {
    const { limit = RECENT } = given;
    const names = ["grep", "tag", "since", "until", "path", "all"];
    const data = await client.history(undefined, limit as number, optionsOf(given, names, options));
    const lines = data.save_points.map(
      (point) =>
        `${when(point)}${point.save_point_id === data.head ? "  <- head: the folder is based on this point" : ""}`,
    );
    return {
      data,
      words: lines.length === 0 ? "there are no save points" : `${lines.join("\n")}${data.truncated ? "\n…" : ""}`,
    };
  },
};

export const history = workspaceVerb({
  about: "Lists the save points, newest first.",
  takes: [arg("workspaceName", opt(text())), arg("limit", opt(number("at most this many; 0: all")))],
  options: HistoryOptions,
  output: HistoryResult,
  command: "history",
  by: "writers",
  looks: true,
  withoutFolder: true,
  agents: ["grep", "tag", "since", "until", "path", "all", "skip", "changes"],
  tool,
  run: async ({ workspace }, _name, limit, options) =>
    (await import("../../look/history.ts")).history(workspace, limit ?? 0, options),
});
