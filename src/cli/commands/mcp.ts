import { type Coverage, coverageOf, readCovered } from "../../agents/covered.ts";
import type { Client } from "../../contract/index.ts";
import type { CommandDefinition } from "../command.ts";
import type { Context } from "../context.ts";
import type { Input } from "../input.ts";

export const command: CommandDefinition = {
  name: "mcp",
  options: [
    {
      flags: "--if-covered <tool>",
      text: "serve no tools in a folder that `cairn agent install` does not cover for this coding agent",
    },
  ],
  examples: [
    {
      line: "cairn -C ~/project mcp",
      text: "an agent's runtime starts this server: tools to save, inspect and restore",
    },
  ],
  async run(context, input) {
    const folder = context.folder();
    const library = await context.library();
    const coverage = coverageFor(context, input);
    let client: Client | null = null;
    const opened = async (makesWorkspace: boolean): Promise<Client> => {
      if (client !== null) return client;
      // A folder in a workspace belongs to the workspace above.
      const found = (await library.find(folder, { signal: context.signal })) ?? coverage?.root ?? folder;
      return (client = await (makesWorkspace ? library.openOrInit(found) : library.open(found)));
    };
    const open = Object.assign(opened, { lost: () => void (client = null) });
    return {
      data: { path: (await library.find(folder, { signal: context.signal }).catch(() => null)) ?? folder },
      // A program that asks for one JSON object cannot read a protocol on the same output.
      ...(context.globals.json
        ? {}
        : {
            text: () => "",
            async afterwards() {
              const { serveOnStdio } = await import("../../api/mcp/server.ts");
              await serveOnStdio(coverage === null ? null : open, context.signal);
              await client?.close();
            },
          }),
    };
  },
};

/** Returns the entry that covers the folder; null: none does. Undefined if all folders are served, or if the list cannot be read. */
function coverageFor(context: Context, input: Input): Coverage | null | undefined {
  const tool = input.text("ifCovered");
  const list = tool === undefined ? null : readCovered(context.env);
  return list === null ? undefined : coverageOf(list, tool!, context.folder());
}
