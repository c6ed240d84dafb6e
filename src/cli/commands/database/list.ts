import type { DatabaseInfo, DatabaseList } from "../../../verbs/schemas.ts";
import type { CommandDefinition } from "../../command.ts";
import type { Context } from "../../context.ts";
import { EXIT_PARTLY } from "../../envelope.ts";
import { formatBytes, printable } from "../../render/format.ts";
import { renderTable } from "../../render/table.ts";

export const command: CommandDefinition = {
  name: "database list",
  answers: true,
  arguments: [{ name: "[folder]", text: "the folder to search; default: the current folder", completes: "folders" }],
  examples: [
    {
      line: "cairn database list ~/.mozilla",
      text: "with the size of each log, the processes that have it open, its state, and how consistent a capture would be by its mode",
    },
  ],
  async run(context, input) {
    const library = await context.library();
    const folder = context.folder(input.argument(0));
    const result = await library.listDatabases(folder, context.callOptions());
    for (const { path, detail } of result.unread) context.note(`${path === "" ? folder : path}: ${detail}`);
    const exitStatus = result.unread.length > 0 ? EXIT_PARTLY : 0;
    return { data: result, paged: true, exitStatus, text: () => render(context, result, folder) };
  },
};

async function render({ style }: Context, { databases }: DatabaseList, folder: string): Promise<string> {
  if (databases.length === 0) return `no SQLite database is in ${printable(folder)}`;
  const rows = databases.map((database) => [
    style.bold(printable(database.path === "" ? folder : database.path)),
    formatBytes(database.bytes),
    journalOf(database),
    database.holders.map(({ command, pid }) => `${printable(command)} (${pid})`).join(", ") || "not open",
    database.locked
      ? style.yellow("a program is writing")
      : database.damaged
        ? style.red("damaged: shorter than its header says")
        : "",
    database.reason === null
      ? style.green(database.label)
      : style.yellow(`${database.label}: ${printable(database.reason)}`),
  ]);
  const heading = ["database", "size", "journal", "open in", "state", "a capture would be"].map(style.dim);
  return (await renderTable([heading, ...rows], [1])).join("\n");
}

function journalOf({ journal_mode: mode, wal_bytes: bytes }: DatabaseInfo): string {
  return mode === "wal" ? `log of ${formatBytes(bytes)}` : "rollback journal";
}
