import { FEW, listed, optionsOf, shortId, type Tool } from "../kinds/tool.ts";
import { pick } from "../../contract/schema.ts";
import { TurnsOptions, TurnsResult } from "../../contract/turns.ts";
import { workspaceVerb } from "../kinds/define.ts";

const tool: Tool = {
  title: "List turns",
  about:
    "Lists the turns of coding agents in the folder, newest first: prompt, shell commands, what changed, and the state before. `rewind` goes back to before a turn.",
  takes: { ...FEW, ...pick(TurnsOptions, "session") },
  output: TurnsResult,
  changes: false,
  async run(client, given, options) {
    const data = await client.turns(optionsOf<TurnsOptions>(given, ["limit", "session"], options));
    const lines = data.turns.map(
      ({ turn_id: id, agent, started_at: at, prompt, changed, uncertain, before }) =>
        `${id} ${at} ${agent} ${changed ?? "?"} changed${uncertain === 0 ? "" : `, ${uncertain} more perhaps`}, before: ${shortId(before)} ${prompt ?? ""}`,
    );
    const { describeFailed } = await import("../../workspace/points/failed-hooks.ts");
    const failed = data.failed_hooks.map((each) => describeFailed(each));
    const words = listed(lines, data.more, "no hook of an agent has saved here yet");
    return { data, words: [...failed, words].join("\n") };
  },
};

export const turns = workspaceVerb({
  about: "Returns the turns of coding agents, newest first, from the log of their hooks.",
  options: TurnsOptions,
  output: TurnsResult,
  command: "turns",
  by: "writers",
  looks: true,
  agents: ["session", "limit"],
  tool,
  run: async ({ workspace }, options) => (await import("../../look/turns.ts")).turns(workspace, options),
});
