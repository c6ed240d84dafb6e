import { FEW, listed, optionsOf, RECENT, type Tool, when } from "../kinds/tool.ts";
import { text } from "../../contract/schema.ts";
import { WhyOptions, WhyResult } from "../../contract/looking.ts";
import { arg } from "../../contract/verb.ts";
import { PathInput } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

const tool: Tool = {
  title: "What changed a path",
  about: "Lists the save points that changed a path, newest first, with their causes.",
  takes: { path: text("path from the workspace's root"), ...FEW },
  output: WhyResult,
  changes: false,
  async run(client, given, options) {
    const data = await client.why(given["path"] as string, {
      limit: RECENT,
      ...optionsOf<WhyOptions>(given, ["limit"], options),
    });
    const lines = data.changes.map(({ change, save_point }) => `${change} in ${when(save_point)}`);
    return { data, words: listed(lines, 0, "no save point changed the path") };
  },
};

export const why = workspaceVerb({
  about: "Lists the points that changed a path, and each change.",
  takes: [arg("path", PathInput)],
  options: WhyOptions,
  output: WhyResult,
  command: "why",
  by: "writers",
  looks: true,
  agents: ["limit"],
  seals: true,
  tool,
  run: async ({ workspace }, path, options) => (await import("../../look/history.ts")).why(workspace, path, options),
});
