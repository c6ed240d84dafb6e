import type { CommandDefinition, Outcome } from "../command.ts";
import type { Context } from "../context.ts";
import type { Input } from "../input.ts";

export const command: CommandDefinition = {
  name: "status",
  arguments: [{ name: "[dir]", text: "the workspace", completes: "folders" }],
  examples: [
    { line: "cairn status", text: "clean or changed, where the folder stands, what was recovered" },
    { line: "cairn status --json -C ~/project", text: "for programs" },
  ],
  run,
};

async function run(context: Context, input: Input): Promise<Outcome> {
  const client = await context.open(input.argument(0));
  const status = await client.status(context.callOptions());
  return {
    data: status,
    async text() {
      const [{ renderStatus }, { shortener }] = await Promise.all([
        import("../render/status.ts"),
        import("../render/points.ts"),
      ]);
      const shorten = await shortener(client, [status.head, status.latest]);
      const save = context.commandLine(["save"], input.argument(0));
      return renderStatus({ status, shorten, save, style: context.style, now: Date.now() });
    },
  };
}
