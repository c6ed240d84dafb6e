import { CairnError } from "../../errors.ts";
import { leftOut, optionsOf, shortId, type Tool } from "../kinds/tool.ts";
import { SaveOptions, SaveResult } from "../../contract/points.ts";
import { object, pick } from "../../contract/schema.ts";
import { pointData } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

const tool: Tool = {
  title: "Save the folder",
  about:
    "Saves the folder's current state as a save point. Call it before a risky change and after each piece of work: `restore` can bring the state back.",
  takes: pick(SaveOptions, "message", "tags", "cause"),
  output: SaveResult,
  changes: true,
  makesWorkspace: true,
  async run(client, given, options) {
    const call = optionsOf<SaveOptions>(given, ["message", "tags", "cause"], options);
    // The kind of its cause identifies an agent's point.
    if (call.cause !== undefined && call.cause.kind !== "tool_call")
      throw new CairnError("usage", "the cause of an agent's save must be of the kind tool_call", {
        hint: 'describe the tool call, for example {"kind":"tool_call","tool":"bash"}',
      });
    const data = await client.save({ cause: { kind: "tool_call", tool: "mcp" }, ...call, skipUnchanged: true });
    return {
      data,
      words: data.made
        ? `saved as ${shortId(data.save_point_id)}${leftOut(data.left_out)}`
        : `nothing had changed since ${shortId(data.save_point_id)}`,
    };
  },
};

export const save = workspaceVerb({
  about: "Makes a save point of the folder's current state.",
  options: SaveOptions,
  output: SaveResult,
  errors: ["busy", "no_space", "refused", "detached", "interrupted"],
  command: {
    save: object({
      ...pointData,
      ...pick(
        SaveResult,
        "made",
        "changes",
        "read_bytes",
        "duration_ms",
        "left_out",
        "not_kept",
        "secrets",
        "rows",
        "hooks",
      ),
    }),
  },
  by: "writers",
  agents: ["message", "tags", "id", "cause", "onDetached", "skipUnchanged", "reread"],
  agentCause: "tool_call",
  opensPaths: ({ options }) => (options as SaveOptions | undefined)?.with !== undefined,
  makesPoint: "save",
  changesPoints: true,
  freezes: true,
  event: (saved) => (saved.made ? { type: "save", data: saved } : null),
  tool,
  run: async ({ workspace }, options) => (await import("../../change/save.ts")).save(workspace, options),
});
