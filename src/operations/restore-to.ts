import { isAbsolute } from "node:path";
import { CairnError } from "../errors.ts";
import { normalizeTyped } from "../fs/safe-path.ts";
import { recoverPartials } from "../workspace/fork-recovery.ts";
import { restoreTo as writeElsewhere } from "../workspace/write-content.ts";
import type { Workspace } from "../workspace/workspace.ts";
import type { RestoreOptions, RestoreResult } from "../contract/index.ts";
import { publicLeftOut } from "../workspace/left-out.ts";

/** Writes a point, or some paths of it, into another folder; the workspace is not touched. */
export async function restoreTo(
  workspace: Workspace,
  options: RestoreOptions & { to: string },
): Promise<RestoreResult> {
  const started = performance.now();
  if (!isAbsolute(options.to))
    throw new CairnError("usage", `the folder to restore into must be an absolute path, not ${options.to}`);
  await recoverPartials(workspace, options);
  const point = workspace.resolve(options.target);
  const paths = options.paths === undefined ? null : options.paths.map(normalizeTyped);
  const written = await writeElsewhere(workspace, { ...options, point, to: options.to, paths });
  return {
    restored_to: point.descriptor.save_point_id,
    undo_id: null,
    changes: { created: written.entries, updated: 0, deleted: 0, metadata: 0 },
    left_out: written.leftOut.map(publicLeftOut),
    unlinked: [],
    method: "entries",
    duration_ms: Math.round(performance.now() - started),
  };
}
