import type { AdoptOptions, Client, InitOptions } from "../../operations/contract.ts";
import type { CommandDefinition, Outcome } from "../command.ts";
import type { Context } from "../context.ts";
import { allowOption, ENGINES, parseEngine, parseGuards, usage } from "../input.ts";
import type { Input } from "../input.ts";
import { printable } from "../render/format.ts";

export const command: CommandDefinition = {
  name: "init",
  arguments: [{ name: "[dir]", text: "the folder; default: the current one", completes: "folders" }],
  options: [
    {
      flags: "--name <name>",
      text: "a name for what is kept here; default: the folder's; the workspace in it is `main`",
    },
    {
      flags: "--engine <engine>",
      values: ENGINES,
      text: "btrfs-snapshot, juicefs-clone, reflink-copy or copy; default: the best that works",
    },
    { flags: "--self-contained", text: "make DIR/main the workspace and DIR/.cairn the control directory" },
    { flags: "--quota <size>", text: "how large the store may grow, e.g. 50GiB; default: 20 % of the file system" },
    allowOption(["home", "nested", "git", "space", "holders"]),
  ],
  examples: [
    { line: "cairn init ~/project", text: "begin to keep a folder; nothing in it moves" },
    {
      line: "cairn init ~/project --engine btrfs-snapshot",
      text: "on btrfs: instant save points; a plain folder is made a subvolume in place",
    },
    {
      line: "cairn init /shared/agent-7 --self-contained",
      text: "a new folder that can move between hosts with all its points",
    },
  ],
  run,
};

async function run(context: Context, input: Input): Promise<Outcome> {
  const selfContained = input.flag("selfContained");
  const library = await context.library();
  const folder = context.chosenFolder(input.argument(0)) ?? context.cwd;
  const options = readOptions(context, input);
  if (selfContained && context.globals.controlDirectory !== undefined)
    throw usage("--self-contained and --control-dir exclude each other");
  const client: Client = selfContained ? await library.init(folder, options) : await library.adopt(folder, options);
  const engineReasons = [...client.engineReasons];
  const { conversion } = client;
  const data = {
    workspace: client.workspace,
    engine_reasons: engineReasons,
    adopted: !selfContained,
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
        `  save it: ${style.cyan(context.commandLine(["save"], selfContained ? path : input.argument(0)))}`,
      ].join("\n");
    },
  };
}

function readOptions(context: Context, input: Input): AdoptOptions {
  const options: AdoptOptions & InitOptions = { ...context.callOptions(), allow: parseGuards(input.list("allow")) };
  const [name, engine, quota] = [input.text("name"), input.text("engine"), input.size("quota")];
  if (name !== undefined) options.name = name;
  if (engine !== undefined) options.engineType = parseEngine(engine, "--engine");
  if (quota !== undefined) options.quotaBytes = quota;
  const control = context.globals.controlDirectory;
  if (control !== undefined) options.controlDirectory = context.place(control);
  return options;
}
