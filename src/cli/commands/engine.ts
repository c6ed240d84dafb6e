import type { EngineResult } from "../../operations/contract.ts";
import type { CommandDefinition, Outcome } from "../command.ts";
import type { Context } from "../context.ts";
import { parseEngine, usage } from "../input.ts";
import type { Input } from "../input.ts";
import { printable } from "../render/format.ts";

export const command: CommandDefinition = {
  name: "engine",
  arguments: [
    { name: "[words...]", text: "[show] [DIR] or set TYPE [DIR]; default: the current folder", completes: "folders" },
  ],
  examples: [
    { line: "cairn engine show ~/project", text: "the best engine there, and why the others were passed over" },
    {
      line: "cairn engine set reflink-copy",
      text: "how further save points hold content; older ones stay as they are",
    },
  ],
  run,
};

async function run(context: Context, input: Input): Promise<Outcome> {
  const words = input.rest(0);
  if (words[0] === "set") return set(context, words.slice(1));
  const [folder, ...more] = words[0] === "show" ? words.slice(1) : words;
  if (more.length > 0) throw usage("engine wants one folder: cairn engine [show] [DIR]");
  const library = await context.library();
  return shown(context, await library.detectEngine(context.chosenFolder(folder) ?? context.cwd));
}

async function set(context: Context, words: readonly string[]): Promise<Outcome> {
  const [type, folder, ...more] = words;
  if (type === undefined || more.length > 0) throw usage("engine set wants a type: cairn engine set TYPE [DIR]");
  const client = await context.open(folder);
  return shown(context, await client.setEngine(parseEngine(type, "engine set")));
}

function shown(context: Context, result: EngineResult): Outcome {
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
