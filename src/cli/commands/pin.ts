import type { CommandDefinition, Outcome } from "../command.ts";
import type { Context } from "../context.ts";
import type { Input } from "../input.ts";

export const command: CommandDefinition = {
  name: "pin",
  arguments: [{ name: "<point>", text: "a save point", completes: "points" }],
  examples: [{ line: "cairn pin 1a2b3c4d", text: "keep it whatever a cleanup's rules say" }],
  run,
};

async function run(context: Context, input: Input): Promise<Outcome> {
  const client = await context.open();
  const point = await client.pin(input.required(0), context.callOptions());
  return {
    data: { save_point: point },
    async text() {
      const { shortener } = await import("../render/points.ts");
      const id = (await shortener(client, [point.save_point_id]))(point.save_point_id);
      return `pinned ${context.style.bold(id)}; take it back: ${context.style.cyan(context.commandLine(["unpin", id]))}`;
    },
  };
}
