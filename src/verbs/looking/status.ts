import { shortId, type Tool } from "../kinds/tool.ts";
import { StatusOptions, StatusResult } from "../../contract/looking.ts";
import { workspaceVerb } from "../kinds/define.ts";

const tool: Tool = {
  title: "What changed since the last save",
  about: "Counts what changed in the folder since head, the save point that the folder is based on.",
  takes: {},
  output: StatusResult,
  changes: false,
  async run(client, _given, options) {
    const data = await client.status(options);
    const { added, modified, removed } = data.changes;
    const words = data.clean ? "nothing has changed" : `added ${added}, changed ${modified}, removed ${removed}`;
    return {
      data,
      words: `${words} since ${shortId(data.head)}${data.detached ? "; there are newer save points" : ""}`,
    };
  },
};

export const status = workspaceVerb({
  about: "Returns the changes since head, and the state of the workspace's points, store and backups.",
  options: StatusOptions,
  output: StatusResult,
  command: "status",
  by: "writers",
  looks: true,
  agents: ["holders"],
  seals: true,
  addsWatched: true,
  tool,
  run: async ({ workspace, unsealed }, options) => {
    const { currentReasons } = await import("../../keep/engine.ts");
    const reasons = await currentReasons(workspace.found, options);
    return (await import("../../look/status.ts")).status(workspace, { ...options, unsealed }, reasons);
  },
});
