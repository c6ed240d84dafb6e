import type { CommandDefinition } from "../command.ts";
import { printable } from "../render/format.ts";
import { InitOptions } from "../../contract/care.ts";
import { omit } from "../../contract/schema.ts";
import { VerbOptions } from "../options.ts";

const OPTIONS = new VerbOptions(omit(InitOptions, "controlDirectory"));

export const command: CommandDefinition = {
  name: "init",
  arguments: [{ name: "[dir]", text: "the folder; default: the current one", completes: "folders" }],
  options: OPTIONS.definitions,
  examples: [
    { line: "cairn init ~/project", text: "make a folder a workspace; nothing in it moves" },
    {
      line: "cairn init ~/project --engine btrfs-snapshot",
      text: "on btrfs: instant save points; a plain folder is converted into a subvolume in place",
    },
    {
      line: "cairn init /shared/agent-7 --self-contained",
      text: "a new folder that can move between hosts with all its points",
    },
  ],
  async run(context, input) {
    const library = await context.library();
    const folder = context.folder(input.argument(0));
    const options: InitOptions = { ...context.openOptions(), ...OPTIONS.read(context, input) };
    const { selfContained = false } = options;
    const client = await library.init(folder, options);
    const engineReasons = [...client.engineReasons];
    const { conversion } = client;
    const data = {
      workspace: client.workspace,
      engine_reasons: engineReasons,
      self_contained: selfContained,
      ...(conversion === null ? {} : { conversion }),
    };
    await client.close();
    return {
      data,
      async text() {
        const { renderConversion, renderEngineReasons } = await import("../render/status.ts");
        const { style } = context;
        const { path, control_directory: control } = data.workspace;
        return [
          `${style.green("ready")}: ${printable(path)}`,
          ...(conversion === null ? [] : renderConversion(conversion).map((line) => `  ${line}`)),
          `  control directory: ${printable(control)}`,
          ...renderEngineReasons(engineReasons, style).map((line) => `  ${line}`),
          `  to save it: ${style.cyan(context.commandLine(["save"], selfContained ? path : input.argument(0)))}`,
        ].join("\n");
      },
    };
  },
};
