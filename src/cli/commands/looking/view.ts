import type { ViewLease } from "../../../contract/index.ts";
import type { CommandDefinition } from "../../command.ts";
import { formatInstant, printable, shellQuote } from "../../render/format.ts";
import { renderTable } from "../../render/table.ts";

export const command: CommandDefinition = {
  name: "view",
  answers: true,
  arguments: [{ name: "[target]", text: "a save point; default: list the open views", completes: "points" }],
  options: [{ flags: "--close <id>", text: "close a view and remove its folder", excludes: ["[target]"] }],
  examples: [
    { line: "cairn view head~1", text: "open a read-only folder; no cleanup removes the point while the view is open" },
    { line: "cairn view", text: "list the open views" },
    { line: "cairn view --close 5f6e7d8c9b0a1c2d", text: "close the view" },
  ],
  async run(context, input) {
    const target = input.argument(0);
    const closing = input.text("close");
    const client = await context.open();
    if (closing !== undefined) {
      const closed = await client.closeView(closing, context.callOptions());
      return { data: { closed }, text: () => `closed ${closed.view_id}` };
    }
    if (target === undefined) {
      const views = await client.listViews(context.callOptions());
      return { data: { views }, text: () => renderViews(views) };
    }
    const view = await client.view(target, context.callOptions());
    const close = context.commandLine(["view", "--close", view.view_id]);
    return {
      data: { view },
      text: () => `${printable(shellQuote(view.path))}\n  close it: ${context.style.cyan(close)}`,
    };
  },
};

async function renderViews(views: readonly ViewLease[]): Promise<string> {
  if (views.length === 0) return "no view is open";
  const rows = views.map((view) => [
    view.view_id,
    view.save_point_id.slice(0, 8),
    formatInstant(view.opened_at),
    printable(view.path),
  ]);
  return (await renderTable(rows)).join("\n");
}
