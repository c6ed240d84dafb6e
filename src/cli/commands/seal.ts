import type { WorkspaceCallOptions } from "../../contract/index.ts";
import type { CommandDefinition } from "../command.ts";
import { plural } from "../render/format.ts";

export const command: CommandDefinition = {
  name: "seal",
  arguments: [{ name: "[dir]", text: "the workspace", completes: "folders" }],
  examples: [{ line: "cairn seal", text: "whatever needs a digest seals by itself; this does it now" }],
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
