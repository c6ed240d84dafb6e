import type { ExportPointResult } from "../../contract/export-directory.ts";
import { isBackupOperand } from "../../contract/operand.ts";
import { pick } from "../../contract/schema.ts";
import { ImportDirectoryOptions, type ImportDirectoryResult } from "../../verbs/schemas.ts";
import type { CommandDefinition, Outcome } from "../command.ts";
import type { Context } from "../context.ts";
import { type Input, usage } from "../input.ts";
import { BACKUP_OPTIONS, operandOf } from "../operands.ts";
import { looked } from "./looking/with-backups.ts";
import { VerbOptions } from "../options.ts";
import { formatBytes, plural, printable, shellQuote } from "../render/format.ts";
import { statSync } from "node:fs";

const NEW = { name: "<new>", text: "the new folder, absent or empty", completes: "folders" } as const;
const NAMED = new VerbOptions(pick(ImportDirectoryOptions, "name"));
const FROM = [
  { flags: "--from <place>", text: "an export directory that `cairn export` wrote, or a tar file of one" },
  ...NAMED.definitions,
];

/** Returns the value of `--to` or `--from`. Throws `usage` without one. */
export function placeOf(input: Input, way: "to" | "from", hint?: string): string {
  const place = input.text(way) ?? "";
  if (place === "")
    throw usage(`--${way} PLACE is needed: an export directory, or a file whose name ends in .tar`, hint);
  return place;
}

/** A line for people about an export. */
export function exported({ style }: Context, { files, bytes, path }: ExportPointResult): string {
  return `${style.green("exported")} ${plural(files, "file")}, ${formatBytes(bytes)}, into ${printable(path)}`;
}

export const exportCommand: CommandDefinition = {
  name: "export",
  arguments: [
    {
      name: "<state>",
      text: "POINT[:PATH], NAME:POINT[:PATH] of another workspace, or backup:SNAPSHOT[:PATH]",
      completes: "points",
    },
  ],
  options: [
    ...BACKUP_OPTIONS,
    {
      flags: "--to <place>",
      text: "the export directory to write, absent or empty; if its name ends in .tar, one tar file",
    },
  ],
  examples: [
    {
      line: "cairn export head --to /mnt/share/app",
      text: "a directory that rsync can copy, or that many machines can read",
    },
    { line: "cairn export backup:latest:src --to /mnt/share/src", text: "a folder of the last backup" },
    { line: "cairn export head --to app.tar", text: "one file, which any tar unpacks to the same directory" },
  ],
  async run(context, input) {
    const place = placeOf(input, "to");
    const client = await context.open();
    const state = operandOf(context, client, input.required(0));
    return looked(context, input, isBackupOperand(state), async (look) => {
      const asTar = /\.tar$/i.test(place);
      const result = await client.exportPoint(state, context.place(place), { ...look, asTar });
      return { data: result, text: () => `${exported(context, result)}\n  state ${result.state_digest}` };
    });
  },
};

export const importCommand: CommandDefinition = {
  name: "import",
  arguments: [NEW],
  options: FROM,
  examples: [{ line: "cairn import --from /mnt/share/app ~/app", text: "a workspace with a record of its origin" }],
  run: async (context, input) => made(context, input, false),
};

export const cloneCommand: CommandDefinition = {
  name: "clone",
  arguments: [NEW],
  options: FROM,
  examples: [
    { line: "cairn clone --from /mnt/golden ~/try", text: "an independent workspace; the directory is only read" },
  ],
  run: async (context, input) => made(context, input, true),
};

async function made(context: Context, input: Input, isClone: boolean): Promise<Outcome> {
  const hint = "to start from a save point on this machine, use cairn fork";
  const place = context.absolute(placeOf(input, "from", hint));
  const isTar = statSync(place, { throwIfNoEntry: false })?.isFile() === true;
  const library = await context.library();
  const options = { ...context.callOptions(), isClone, isTar, ...NAMED.read(context, input) };
  const result = await library.importDirectory(place, context.place(input.required(0)), options);
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
