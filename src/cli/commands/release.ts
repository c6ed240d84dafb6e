import type { CommandDefinition, Outcome } from "../command.ts";
import type { Context } from "../context.ts";
import type { Input } from "../input.ts";
import { formatBytes, plural, printable } from "../render/format.ts";

export const command: CommandDefinition = {
  name: "release",
  arguments: [{ name: "<dir>", text: "the workspace; its files stay as they are", completes: "folders" }],
  options: [{ flags: "--delete-points", text: "remove its save points too; nothing brings them back" }],
  examples: [
    { line: "cairn release ~/project", text: "stop keeping it; the points stay and `cairn init` finds them again" },
    { line: "cairn release ~/project --delete-points", text: "remove everything that Cairn holds of it" },
  ],
  run,
};

async function run(context: Context, input: Input): Promise<Outcome> {
  const client = await context.open(input.required(0));
  const result = await client.release({ ...context.callOptions(), deletePoints: input.flag("deletePoints") });
  return {
    data: result,
    text() {
      const kept = input.flag("deletePoints")
        ? `${plural(result.points_deleted, "point")} deleted, ${formatBytes(result.bytes_freed)} freed`
        : `its points stay in ${printable(result.workspace.control_directory)}`;
      return `${context.style.green("released")} ${printable(result.workspace.path)}; ${kept}`;
    },
  };
}
