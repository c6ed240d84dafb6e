import type { WorkspaceInfo } from "../../contract/index.ts";
import type { CommandDefinition } from "../command.ts";
import type { Context } from "../context.ts";
import { formatAge, formatBytes, plural, printable } from "../render/format.ts";
import { renderTable } from "../render/table.ts";

export const command: CommandDefinition = {
  name: "workspaces",
  examples: [
    { line: "cairn workspaces", text: "every folder that this user keeps or has opened; missing ones are marked" },
  ],
  async run(context) {
    const library = await context.library();
    const workspaces = await library.listWorkspaces(context.callOptions());
    return { data: { workspaces }, paged: true, text: () => render(context, workspaces) };
  },
};

async function render(context: Context, workspaces: readonly WorkspaceInfo[]): Promise<string> {
  const { style } = context;
  if (workspaces.length === 0) return "no folder is known yet; `cairn save DIR` begins with one";
  const now = Date.now();
  const rows = workspaces.map((workspace) => [
    workspace.present ? style.green("present") : style.yellow("missing"),
    style.bold(printable(workspace.name)),
    plural(workspace.points, "point"),
    formatBytes(workspace.store_bytes),
    workspace.last_save_at === null ? "never saved" : formatAge(workspace.last_save_at, now),
    printable(workspace.path) + (workspace.problem === undefined ? "" : style.red(`  ${printable(workspace.problem)}`)),
  ]);
  const lines = await renderTable(rows, [2, 3]);
  const missing = workspaces.find((workspace) => !workspace.present);
  if (missing !== undefined)
    lines.push(
      style.dim(
        "a folder that was moved: cairn relocate OLD NEW; deleted: cairn -C OLD restore latest; not wanted any more: cairn release OLD",
      ),
    );
  return lines.join("\n");
}
