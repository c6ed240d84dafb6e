import { group } from "../../command.ts";

const files = async () => import("./install.ts");

export const command = group({
  name: "agent",
  examples: [
    {
      line: "cairn -C ~/project agent install claude-code",
      text: "save points around each turn and tool call, and the MCP server",
    },
  ],
  verbs: {
    install: {
      summary: "write hooks and the MCP server into a tool's own configuration",
      load: async () => ({ command: (await files()).install }),
    },
    remove: { summary: "take them out again", load: async () => ({ command: (await files()).remove }) },
    hook: { summary: "save the folder that a tool works in; for its hooks", load: () => import("./hook.ts") },
  },
});
