import type { WorkspaceCallOptions } from "../../contract/index.ts";
import type { CommandDefinition } from "../command.ts";
import { plural } from "../render/format.ts";

export const command: CommandDefinition = {
  name: "seal",
  arguments: [{ name: "[dir]", text: "the workspace", completes: "folders" }],
  examples: [{ line: "cairn seal", text: "what needs a digest seals that point by itself; this does it for all, now" }],
  async run(context, input) {
    const client = await context.open(input.argument(0));
    const options: WorkspaceCallOptions = context.callOptions();
    const result = await client.seal(options);
    return {
      data: result,
      async text() {
        return result.sealed === 0
          ? "nothing is left to seal"
          : `${context.style.green("sealed")} ${plural(result.sealed, "save point")}`;
      },
    };
  },
};
