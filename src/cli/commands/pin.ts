import type { CommandDefinition } from "../command.ts";
import { shortener } from "../shorten.ts";

export const command = pinning("pin", "unpin", "pinned", "protect it from every cleanup");
export const unpin = pinning("unpin", "pin", "unpinned", "let cleanups remove it again");

/** Makes the command that pins or unpins a point. `back`: the command that reverts it. */
function pinning(name: "pin" | "unpin", back: string, done: string, example: string): CommandDefinition {
  return {
    name,
    arguments: [{ name: "<point>", text: "a save point", completes: "points" }],
    examples: [{ line: `cairn ${name} 1a2b3c4d`, text: example }],
    async run(context, input) {
      const client = await context.open();
      const was = await client.resolve(input.required(0), context.callOptions());
      const isSo = was.pinned === (name === "pin");
      const point = await client[name](input.required(0), context.callOptions());
      return {
        data: { save_point: point },
        async text() {
          const id = (await shortener(client, [point.save_point_id]))(point.save_point_id);
          if (isSo) return `${context.style.bold(id)} ${name === "pin" ? "was pinned already" : "was not pinned"}`;
          const way = context.style.cyan(context.commandLine([back, id]));
          return `${done} ${context.style.bold(id)}; to take this back: ${way}`;
        },
      };
    },
  };
}
