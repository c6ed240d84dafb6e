import {
  type ExportPointResult,
  ImportDirectoryOptions,
  type ImportDirectoryResult,
} from "../../contract/export-directory.ts";
import { pick } from "../../contract/schema.ts";
import type { CommandDefinition, Outcome } from "../command.ts";
import type { Context } from "../context.ts";
import { type Input, usage } from "../input.ts";
import { VerbOptions } from "../options.ts";
import { formatBytes, plural, printable, shellQuote } from "../render/format.ts";

const NEW = { name: "<new>", text: "the new folder, absent or empty", completes: "folders" } as const;
const NAMED = new VerbOptions(pick(ImportDirectoryOptions, "name"));
const FROM = [
  { flags: "--from-dir <dir>", text: "an export directory that `cairn export` wrote" },
  { flags: "--from-tar <file>", text: "a tar file of an export directory, instead of --from-dir" },
  ...NAMED.definitions,
];

export const TO_DIRECTORY = { flags: "--to-dir <dir>", text: "the export directory to write, absent or empty" };

/** Returns the value of `--to-dir` or `--to-tar`, or of `--from-dir` or `--from-tar`. Throws `usage` unless exactly one is given. */
function placeOf(input: Input, way: "to" | "from", hint?: string): { place: string; isTar: boolean } {
  const [directory, tar] = [input.text(`${way}Dir`), input.text(`${way}Tar`)];
  const place = directory ?? tar ?? "";
  if (place === "" || (directory !== undefined && tar !== undefined))
    throw usage(`give exactly one of --${way}-dir and --${way}-tar`, hint);
  return { place, isTar: tar !== undefined };
}

/** A line for people about an export. */
export function exported({ style }: Context, { files, bytes, path }: ExportPointResult): string {
  return `${style.green("exported")} ${plural(files, "file")}, ${formatBytes(bytes)}, into ${printable(path)}`;
}

export const exportCommand: CommandDefinition = {
  name: "export",
  arguments: [{ name: "<point>", text: "a save point", completes: "points" }],
  options: [TO_DIRECTORY, { flags: "--to-tar <file>", text: "write one tar file instead of a directory" }],
  examples: [
    {
      line: "cairn export head --to-dir /mnt/share/app",
      text: "a directory that rsync can copy, or that many machines can read",
    },
    { line: "cairn export head --to-tar app.tar", text: "one file, which any tar unpacks to the same directory" },
  ],
  async run(context, input) {
    const { place, isTar } = placeOf(input, "to");
    const client = await context.open();
    const result = await client.exportPoint(input.required(0), context.place(place), {
      ...context.callOptions(),
      asTar: isTar,
    });
    return {
      data: result,
      text: () => `${exported(context, result)}\n  state ${result.state_digest}`,
    };
  },
};

export const importCommand: CommandDefinition = {
  name: "import",
  arguments: [NEW],
  options: FROM,
  examples: [{ line: "cairn import --from-dir /mnt/share/app ~/app", text: "a workspace with a record of its origin" }],
  run: async (context, input) => made(context, input, false),
};

export const cloneCommand: CommandDefinition = {
  name: "clone",
  arguments: [NEW],
  options: FROM,
  examples: [
    { line: "cairn clone --from-dir /mnt/golden ~/try", text: "an independent workspace; the directory is only read" },
  ],
  run: async (context, input) => made(context, input, true),
};

async function made(context: Context, input: Input, isClone: boolean): Promise<Outcome> {
  const hint = "to start from a save point on this machine, use cairn fork";
  const { place, isTar } = placeOf(input, "from", hint);
  const library = await context.library();
  const options = { ...context.callOptions(), isClone, isTar, ...NAMED.read(context, input) };
  const result = await library.importDirectory(context.absolute(place), context.place(input.required(0)), options);
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
    `  show its state: ${style.cyan(`cairn -C ${printable(shellQuote(workspace.path))} status`)}`,
  ].join("\n");
}
