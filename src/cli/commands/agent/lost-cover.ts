import { type Cover, coverageOf, readCovered } from "../../../agents/covered.ts";
import type { Context } from "../../context.ts";
import { printable, shellQuote } from "../../render/format.ts";

/** Names the workspaces that were covered as worktrees of a folder whose entry is gone. `before`: the list with that entry. */
export async function noteLostCover(context: Context, before: readonly Cover[], gone: string): Promise<void> {
  const after = readCovered(context.env)?.covers ?? [];
  const tools = new Set(
    before.flatMap(({ tool, folder }) => (folder?.path === gone && folder.git !== null ? [tool] : [])),
  );
  if (tools.size === 0) return;
  const coverIn = (covers: readonly Cover[], tool: string, path: string) =>
    coverageOf({ version: 1, covers }, tool, path);
  for (const { path } of await (await context.library()).listWorkspaces(context.callOptions()))
    for (const tool of tools)
      if (coverIn(before, tool, path)?.by === "family" && coverIn(after, tool, path) === null)
        context.note(
          `hooks of ${tool} do not save ${printable(path)} any more, a worktree of the same repository; to cover it: cairn -C ${shellQuote(path)} agent install ${tool}`,
        );
}
