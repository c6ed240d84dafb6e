import type { EngineResult } from "../../contract/index.ts";
import type { CommandDefinition, Outcome } from "../command.ts";
import type { Context } from "../context.ts";
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

const FOLDER = { name: "[dir]", text: "default: the current folder", completes: "folders" } as const;

export const show: CommandDefinition = {
  name: "engine show",
  answers: true,
  arguments: [FOLDER],
  examples: [
    {
      line: "cairn engine show ~/project",
      text: "a workspace's engine, or the best one for a folder, and why the others were not chosen",
    },
  ],
  async run(context, input) {
    const library = await context.library();
    return shown(context, await library.detectEngine(context.folder(input.argument(0)), context.callOptions()));
  },
};

export const set: CommandDefinition = {
  name: "engine set",
  answers: true,
  arguments: [{ name: "<type>", text: `one of ${ENGINES.join(", ")}`, completes: ENGINES }, FOLDER],
  options: OPTIONS.definitions,
  examples: [
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
    const type = input.required(0);
    const engine = ENGINES.find((known) => known === type);
    if (engine === undefined)
      throw usage(`the engine must be one of ${ENGINES.join(", ")}; found ${JSON.stringify(type)}`);
    const client = await context.open(input.argument(1));
    return shown(
      context,
      await client.setEngine(engine, { ...context.callOptions(), ...OPTIONS.read(context, input) }),
    );
  },
};

export const command: CommandDefinition = {
  ...show,
  name: "engine",
  examples: [{ line: "cairn engine ~/project", text: "like `cairn engine show`" }],
  verbs: {
    show: {
      summary: "show the engine of a workspace, or the best one of a folder",
      load: async () => ({ command: show }),
    },
    set: { summary: "change the engine of later save points", load: async () => ({ command: set }) },
  },
};

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
