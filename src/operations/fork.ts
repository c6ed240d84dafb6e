import { createEmbeddedStore, storePolynomial } from "../workspace/store/embedded-store.ts";
import { storePaths } from "../workspace/store/store-files.ts";
import type { ControlPaths } from "../workspace/control-layout.ts";
import { forkWorkspace } from "../workspace/fork.ts";
import { recoverPartials } from "../workspace/fork-recovery.ts";
import type { WorkspaceParts, Workspace } from "../workspace/workspace.ts";
import type { ForkOptions, ForkResult } from "../contract/index.ts";
import { publicPoint } from "./public-point.ts";
import { publicLeftOut } from "../workspace/left-out.ts";
import { workspaceRef } from "../workspace/find-workspace.ts";

/** A new workspace in an absent or empty folder, equal to a point. */
export async function fork(
  workspace: Workspace,
  target: { point: string; path: string },
  options: ForkOptions & { parts: WorkspaceParts },
): Promise<ForkResult> {
  await recoverPartials(workspace, options);
  const point = workspace.resolve(target.point);
  const { parts, standalone, ...rest } = options;
  const forked = await forkWorkspace(workspace, {
    ...rest,
    point,
    path: target.path,
    standalone: standalone === true ? { populate: populateLike(workspace), parts } : undefined,
  });
  return {
    workspace: workspaceRef(forked.found),
    started_from: point.descriptor.save_point_id,
    save_point: publicPoint(forked.point),
    left_out: forked.leftOut.map(publicLeftOut),
  };
}

/** Its large files are cut as those of the workspace that it comes from. */
function populateLike({ found }: Workspace): (staged: ControlPaths) => Promise<void> {
  return async (staged) => {
    const polynomial = await storePolynomial(storePaths(found.control.root));
    await createEmbeddedStore(storePaths(staged.root), polynomial);
  };
}
