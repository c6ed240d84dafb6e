import type { Client } from "../../contract/index.ts";
import type { CommandDefinition } from "../command.ts";

export const command: CommandDefinition = {
  name: "mcp",
  examples: [
    {
      line: "cairn -C ~/project mcp",
      text: "an agent's runtime starts this server: tools to save, inspect and restore",
    },
  ],
  async run(context) {
    const folder = context.folder();
    const library = await context.library();
    let client: Client | null = null;
    const opened = async (makesWorkspace: boolean): Promise<Client> =>
      (client ??= await (makesWorkspace ? context.openOrInit(undefined, [], { guardsHome: true }) : context.open()));
    const open = Object.assign(opened, { lost: () => void (client = null) });
    return {
      data: { path: (await library.find(folder, context.callOptions()).catch(() => null)) ?? folder },
      // A program that asks for one JSON object cannot read a protocol on the same output.
      ...(context.globals.json
        ? {}
        : {
            text: () => "",
            async afterwards() {
              const { serveOnStdio } = await import("../../api/mcp/server.ts");
              await serveOnStdio(open, context.signal);
            },
          }),
    };
  },
};
