import type { CommandDefinition } from "../command.ts";
import { formatBytes, plural, printable } from "../render/format.ts";
import { renderTable } from "../render/table.ts";

export const command: CommandDefinition = {
  name: "store",
  answers: true,
  arguments: [{ name: "[dir]", text: "the workspace", completes: "folders" }],
  examples: [
    { line: "cairn store", text: "the repository, its password file, and a restic command that opens it" },
    { line: "cairn store --json", text: "for programs: `repository` and `password_file`" },
  ],
  async run(context, input) {
    const client = await context.open(input.argument(0));
    const store = await client.store(context.callOptions());
    return {
      data: store,
      async text() {
        const rows = [
          ["repository", printable(store.repository)],
          ["password file", printable(store.password_file)],
          ["id", store.repository_id],
          ["holds", `${plural(store.points, "point")}, ${formatBytes(store.bytes)}`],
          ["with restic", context.style.cyan(printable(store.restic_command))],
        ];
        return (await renderTable(rows.map(([name = "", value = ""]) => [context.style.dim(name), value]))).join("\n");
      },
    };
  },
};
