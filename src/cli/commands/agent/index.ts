import { group } from "../../command.ts";

const files = async () => import("./install.ts");

export const command = group({
  name: "agent",
  examples: [
    {
      line: "cairn -C ~/project agent install claude-code",
      text: "make save points around each turn and tool call, and add the MCP server",
    },
  ],
  verbs: {
    install: {
      summary: "add hooks and the MCP server to a tool's configuration",
      load: async () => ({ command: (await files()).install }),
    },
    remove: { summary: "remove them again", load: async () => ({ command: (await files()).remove }) },
    status: { summary: "show which tools save a folder, and when they did last", load: () => import("./status.ts") },
    hook: { summary: "save a tool's folder; called by the tool's hooks", load: () => import("./hook.ts") },
  },
});
