import type { WorkspaceCallOptions } from "../../contract/index.ts";
import type { CommandDefinition } from "../command.ts";
import { plural } from "../render/format.ts";

export const command: CommandDefinition = {
  name: "seal",
  arguments: [{ name: "[dir]", text: "the workspace", completes: "folders" }],
  examples: [
    { line: "cairn seal", text: "seal all points now; commands that need a point's digest seal it by themselves" },
  ],
  async run(context, input) {
    const client = await context.open(input.argument(0));
    const options: WorkspaceCallOptions = context.callOptions();
    const result = await client.seal(options);
    return {
      data: result,
      async text() {
        return result.sealed === 0
          ? "every point is sealed already"
          : `${context.style.green("sealed")} ${plural(result.sealed, "save point")}`;
      },
    };
  },
};
