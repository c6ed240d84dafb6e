import type { CommandDefinition, Outcome } from "../command.ts";
import type { Context } from "../context.ts";
import type { Input } from "../input.ts";

export const command: CommandDefinition = {
  name: "unpin",
  arguments: [{ name: "<point>", text: "a save point", completes: "points" }],
  examples: [{ line: "cairn unpin 1a2b3c4d", text: "a cleanup may remove it again" }],
  run,
};

async function run(context: Context, input: Input): Promise<Outcome> {
  const client = await context.open();
  const point = await client.unpin(input.required(0), context.callOptions());
  return {
    data: { save_point: point },
    async text() {
      const { shortener } = await import("../render/points.ts");
      const id = (await shortener(client, [point.save_point_id]))(point.save_point_id);
      return `unpinned ${context.style.bold(id)}; take it back: ${context.style.cyan(context.commandLine(["pin", id]))}`;
    },
  };
}
