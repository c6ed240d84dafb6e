import type { OperationList } from "../../../contract/index.ts";
import type { CommandDefinition } from "../../command.ts";
import { type Shorten, shortener } from "../../shorten.ts";
import type { Style } from "../../render/style.ts";

export const command: CommandDefinition = {
  name: "operations",
  answers: true,
  examples: [{ line: "cairn operations", text: "restores, rewinds, adoptions, undos and redos, newest first" }],
  async run(context) {
    const client = await context.open();
    const result = await client.operations(context.callOptions());
    const ids = result.operations.flatMap(({ undo_id: undo, restored_to: to }) => [undo, to]);
    return {
      data: result,
      paged: true,
      text: async () => render(result, await shortener(client, ids), context.style),
    };
  },
};

async function render(result: OperationList, shorten: Shorten, style: Style): Promise<string> {
  const { formatMinute, plural } = await import("../../render/format.ts");
  const { renderTable } = await import("../../render/table.ts");
  if (result.operations.length === 0) return "no operation has changed the folder yet";
  const now = Date.now();
  const next = (at: string): string =>
    at === result.undo
      ? style.cyan("← undo reverts this")
      : at === result.redo
        ? style.cyan("← redo brings this back")
        : "";
  const rows = result.operations.map(({ at, kind, restored_to: to, undo_id: undo, paths, is_undone: isUndone }) => [
    formatMinute(at, now),
    isUndone ? style.dim(`${kind} (undone)`) : kind,
    `to ${style.bold(shorten(to))}`,
    undo === null ? style.dim("nothing changed") : `before: ${shorten(undo)}`,
    paths === null ? "" : plural(paths.length, "path"),
    next(at),
  ]);
  return (await renderTable(rows)).join("\n");
}
