import { existsSync } from "node:fs";
import { join } from "node:path";
import { type Cover, coverageOf } from "../../../agents/covered.ts";
import { isSilent } from "../../../fs/silent-mounts.ts";
import type { Client } from "../../../contract/index.ts";
import { findWorkspace } from "../../../workspace/place/find-workspace.ts";
import { REMOVE_EVENT } from "../../../workspace/points/agent-events.ts";
import { noteAgentEvent } from "../../../workspace/points/agent-record.ts";
import type { Context } from "../../context.ts";
import { printable, shellQuote } from "../../render/format.ts";

/** Runs a restore, and reports agents whose hooks it removed: the point may be older than their installation. */
export async function tellingOfHooks<T>(context: Context, client: Client, restore: () => Promise<T>): Promise<T> {
  const root = client.workspacePath();
  if (isSilent(root) || ![".claude", ".codex", ".gemini", ".opencode"].some((name) => existsSync(join(root, name))))
    return restore();
  const { installedFor } = await import("../../../agents/tools.ts");
  const before = installedFor(root, context.env);
  const result = await restore();
  const after = new Set(installedFor(root, context.env));
  for (const tool of before.filter((each) => !after.has(each)))
    context.note(
      `this state does not have the hooks of ${tool}; to install them again: ${context.commandLine(["agent", "install", tool, "--for", "everybody"])}`,
    );
  return result;
}

/** Names the workspaces that the user's hooks saved as worktrees of a folder, if the change of the list from `before` to `after` ends that. */
export async function noteLostCover(
  context: Context,
  before: readonly Cover[],
  after: readonly Cover[],
): Promise<void> {
  // The hooks in a worktree's own files stay there.
  const lost = before.filter((each) => each.whom !== "everybody" && each.folder?.git && !after.includes(each));
  if (lost.length === 0) return;
  for (const { path } of await (await context.library()).listWorkspaces(context.callOptions()))
    for (const { tool } of lost)
      if (coverageOf(before, tool, path)?.by === "family" && coverageOf(after, tool, path) === null)
        context.note(
          `hooks of ${tool} do not save ${printable(path)} any more, a worktree of the same repository; to cover it: cairn -C ${shellQuote(path)} agent install ${tool}`,
        );
}

/** Records a removal among the events of the folder's hooks, as the check of an installation is. Never throws. */
export async function noteRemoval({ tool, folder }: { tool: string; folder: string }): Promise<void> {
  try {
    const found = findWorkspace(folder);
    const cause = { kind: "tool_call", agent: tool, event: REMOVE_EVENT, tool: `agent remove ${tool}` };
    const state = { before: null, save_point_id: null, made: false, failed: null };
    if (found !== null) await noteAgentEvent(found, { cause }, state);
  } catch {
    // A removal also works for a workspace that cannot be read.
  }
}
