import type { EngineResult } from "../../contract/index.ts";
import type { CommandDefinition, Outcome } from "../command.ts";
import type { Context } from "../context.ts";
import { only } from "../definitions.ts";
import { usage } from "../input.ts";
import { printable } from "../render/format.ts";
import { EngineOptions } from "../../contract/care.ts";
import { allow, EngineType } from "../../contract/words.ts";
import { VerbOptions } from "../options.ts";

const ENGINES = EngineType.options;
const OPTIONS = new VerbOptions({
  ...EngineOptions.entries,
  allow: allow(
    "",
    ["holders"],
    "override a guard: holders (convert even if Cairn cannot list the processes with open files)",
  ),
});

export const command: CommandDefinition = {
  name: "engine",
  answers: true,
  arguments: [
    {
      name: "[words...]",
      text: "[show] [DIR], or set TYPE [DIR]; default: the current folder",
      places: [{ words: ["show", "set"], or: "folders" }, { words: ENGINES, or: "folders" }, "folders"],
    },
  ],
  options: only({ of: ["set"] }, OPTIONS.definitions),
  examples: [
    {
      line: "cairn engine show ~/project",
      text: "a workspace's engine, or the best one for a folder, and why the others were not chosen",
    },
    {
      line: "cairn engine set reflink-copy",
      text: "change the engine of later save points; older points stay as they are",
    },
    {
      line: "cairn engine set btrfs-snapshot",
      text: "convert a plain folder on btrfs into a subvolume in place: copy, compare, swap",
    },
  ],
  async run(context, input) {
    const words = input.rest(0);
    if (words[0] === "set") return set(context, words.slice(1), OPTIONS.read(context, input));
    const [folder, ...more] = words[0] === "show" ? words.slice(1) : words;
    if (more.length > 0) throw usage("engine takes one folder: cairn engine [show] [DIR]");
    const library = await context.library();
    return shown(context, await library.detectEngine(context.folder(folder), context.callOptions()));
  },
};

async function set(context: Context, words: readonly string[], options: EngineOptions): Promise<Outcome> {
  const [type, folder, ...more] = words;
  if (type === undefined || more.length > 0) throw usage("engine set needs a type: cairn engine set TYPE [DIR]");
  const engine = ENGINES.find((known) => known === type);
  if (engine === undefined)
    throw usage(`the engine must be one of ${ENGINES.join(", ")}; found ${JSON.stringify(type)}`);
  const client = await context.open(folder);
  return shown(context, await client.setEngine(engine, { ...context.callOptions(), ...options }));
}

function shown(context: Context, result: EngineResult): Outcome {
  return {
    data: result,
    async text() {
      const { renderConversion, renderEngineReasons } = await import("../render/status.ts");
      return [
        `${printable(result.path)}: ${context.style.bold(result.engine)}`,
        ...(result.conversion === undefined ? [] : renderConversion(result.conversion)),
        ...renderEngineReasons(result.engine_reasons, context.style),
      ].join("\n");
    },
  };
}
