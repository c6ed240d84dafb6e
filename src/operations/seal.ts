import { CairnError } from "../errors.ts";
import { recoverWorkspace } from "../workspace/recovery.ts";
import { sealAll } from "../workspace/seal.ts";
import type { Workspace } from "../workspace/workspace.ts";
import type { WorkspaceCallOptions } from "../contract/index.ts";

/**
 * Reads every point that is only held, so that its digests are known and the store has its content. Throws `damaged`
 * at the end when there are some whose trees are not what was held; the others are sealed by then.
 */
export async function seal(workspace: Workspace, options: WorkspaceCallOptions): Promise<{ sealed: number }> {
  workspace.engine.prepare();
  using _lock = await workspace.lock("seal", options);
  await recoverWorkspace(workspace, options);
  const { sealed, problems } = await sealAll(workspace, options);
  const [first] = problems;
  if (first === undefined) return { sealed };
  const more = problems.length === 1 ? "" : ` (and ${problems.length - 1} more like it)`;
  throw new CairnError("damaged", `${sealed} sealed; ${first.problem.message}${more}`, {
    hint: first.problem.hint ?? "see `cairn doctor`",
    details: { sealed, unsealed: problems.map(({ id }) => id) },
  });
}
