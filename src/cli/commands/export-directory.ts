import type { ImportDirectoryResult } from "../../contract/export-directory.ts";
import type { CommandDefinition, Outcome } from "../command.ts";
import type { Context } from "../context.ts";
import { type Input, usage } from "../input.ts";
import { formatBytes, plural, printable, shellQuote } from "../render/format.ts";

const NEW = { name: "<new>", text: "the new folder, absent or empty", completes: "folders" } as const;
const FROM = { flags: "--from-dir <dir>", text: "an export directory" };

export const exportCommand: CommandDefinition = {
  name: "export",
  arguments: [{ name: "<point>", text: "a save point", completes: "points" }],
  options: [{ flags: "--to-dir <dir>", text: "the directory, absent or empty" }],
  examples: [
    { line: "cairn export head --to-dir /mnt/share/app", text: "to be copied by rsync, or read by many at once" },
  ],
  async run(context, input) {
    const to = input.text("toDir");
    if (to === undefined || to === "") throw usage("--to-dir names the directory; it is needed");
    const client = await context.open();
    const result = await client.exportPoint(input.required(0), context.place(to), context.callOptions());
    return {
      data: result,
      text: () =>
        `${context.style.green("exported")} ${plural(result.files, "file")}, ${formatBytes(result.bytes)}, into ${printable(result.path)}\n  state ${result.state_digest}`,
    };
  },
};

export const importCommand: CommandDefinition = {
  name: "import",
  arguments: [NEW],
  options: [FROM, { flags: "--name <name>", text: "the new workspace's name; default: the exported one's" }],
  examples: [
    { line: "cairn import --from-dir /mnt/share/app ~/app", text: "a workspace that knows where it came from" },
  ],
  run: async (context, input) => made(context, input, false),
};

export const cloneCommand: CommandDefinition = {
  name: "clone",
  arguments: [NEW],
  options: [FROM, { flags: "--name <name>", text: "the new workspace's name; default: the folder's" }],
  examples: [
    { line: "cairn clone --from-dir /mnt/golden ~/try", text: "a workspace of its own; the directory is only read" },
  ],
  run: async (context, input) => made(context, input, true),
};

async function made(context: Context, input: Input, isClone: boolean): Promise<Outcome> {
  const from = input.text("fromDir");
  if (from === undefined || from === "")
    throw usage(
      "--from-dir names the export directory; it is needed",
      "a save point of this machine is forked: cairn fork",
    );
  const name = input.text("name");
  const library = await context.library();
  const options = { ...context.callOptions(), isClone, ...(name === undefined ? {} : { name }) };
  const result = await library.importDirectory(context.absolute(from), context.place(input.required(0)), options);
  return { data: result, text: () => said(context, result, isClone) };
}

function said(
  { style }: Context,
  { workspace, files, bytes, state_digest }: ImportDirectoryResult,
  isClone: boolean,
): string {
  return [
    `${style.green(isClone ? "cloned" : "imported")} ${plural(files, "file")}, ${formatBytes(bytes)}, into ${printable(workspace.path)} (workspace ${printable(workspace.name)})`,
    `  state ${state_digest}`,
    `  look: ${style.cyan(`cairn -C ${printable(shellQuote(workspace.path))} status`)}`,
  ].join("\n");
}
