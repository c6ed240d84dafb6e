import { recoverWorkspace } from "../workspace/recovery.ts";
import { sealPending } from "../workspace/seal.ts";
import type { Workspace } from "../workspace/workspace.ts";
import type { WorkspaceCallOptions } from "./contract.ts";

/** Reads every point that is only held, so that its digests are known and the store has its content. */
export async function seal(workspace: Workspace, options: WorkspaceCallOptions): Promise<{ sealed: number }> {
  workspace.engine.prepare();
  using _lock = await workspace.lock("seal", options);
  await recoverWorkspace(workspace, options);
  return { sealed: await sealPending(workspace, options) };
}
