import { FEW, listed, optionsOf, RECENT, shortId, type Tool, when } from "../kinds/tool.ts";
import { text } from "../../contract/schema.ts";
import { WhyOptions, WhyResult } from "../../contract/repositories.ts";
import { arg } from "../../contract/verb.ts";
import { PathInput } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

const tool: Tool = {
  title: "What changed a path",
  about: "Lists the save points that changed a path, newest first, with their causes; or the backups of the folder.",
  takes: { path: text("path from the workspace's root"), ...FEW, in: WhyOptions.entries.in },
  output: WhyResult,
  changes: false,
  async run(client, given, options) {
    const data = await client.why(given["path"] as string, {
      limit: RECENT,
      ...optionsOf<WhyOptions>(given, ["limit", "in"], options),
    });
    const lines = data.changes.map(({ change, save_point }) => `${change} in ${when(save_point)}`);
    for (const { change, snapshot } of data.backups?.changes ?? [])
      lines.push(`${change} in backup ${shortId(snapshot.snapshot_id)} ${snapshot.created_at}`);
    return {
      data,
      words: listed(lines, 0, `no ${data.backups === undefined ? "save point" : "state"} changed the path`),
    };
  },
};

export const why = workspaceVerb({
  about: "Lists the points, or the backups of the folder, that changed a path, and each change.",
  takes: [arg("path", PathInput)],
  options: WhyOptions,
  output: WhyResult,
  command: "why",
  by: "writers",
  looks: true,
  agents: ["limit", "in"],
  seals: true,
  tool,
  run: async (hand, path, options) => (await import("../../look/history.ts")).why(hand, path, options),
});
