import type { CommandDefinition, Outcome } from "../command.ts";
import type { Context } from "../context.ts";
import { usage } from "../input.ts";
import type { Input } from "../input.ts";
import { printable } from "../render/format.ts";

export const command: CommandDefinition = {
  name: "engine",
  arguments: [{ name: "[words...]", text: "[show] [DIR]; default: the current folder", completes: "folders" }],
  examples: [
    { line: "cairn engine show ~/project", text: "the best engine there, and why the others were passed over" },
  ],
  run,
};

async function run(context: Context, input: Input): Promise<Outcome> {
  const words = input.rest(0);
  const [folder, ...more] = words[0] === "show" ? words.slice(1) : words;
  if (more.length > 0) throw usage("engine wants one folder: cairn engine [show] [DIR]");
  const library = await context.library();
  const result = await library.detectEngine(context.chosenFolder(folder) ?? context.cwd);
  return {
    data: result,
    async text() {
      const { renderEngineReasons } = await import("../render/status.ts");
      return [
        `${printable(result.path)}: ${context.style.bold(result.engine)}`,
        ...renderEngineReasons(result.engine_reasons, context.style),
      ].join("\n");
    },
  };
}
