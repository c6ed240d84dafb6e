import { createEmbeddedStore, storePolynomial } from "../workspace/store/embedded-store.ts";
import type { ControlPaths } from "../workspace/place/control-layout.ts";
import { forkWorkspace } from "../workspace/new-folder/fork.ts";
import { recoverPartials } from "../workspace/new-folder/recover-folders.ts";
import type { Workspace, WorkspaceParts } from "../workspace/open/workspace.ts";
import type { ForkOptions, ForkResult, RestoreOptions, RestoreResult, ViewLease } from "../contract/points.ts";
import { CairnError } from "../errors.ts";
import { joinPath } from "../formats/bytes.ts";
import { normalizeTyped, printablePath } from "../fs/paths/safe-path.ts";
import { withSidecars } from "../workspace/restore/open-databases.ts";
import { restoreTo as writeElsewhere } from "../workspace/new-folder/restore-to.ts";
import { isAbsolute } from "node:path";
import { pointMeant } from "../look/sources/operands.ts";
import { publicPoint } from "../look/public-point.ts";
import { publicLeftOut, warnOfDamaged } from "../workspace/points/left-out.ts";
import { workspaceRef } from "../workspace/place/find-workspace.ts";
import { gitStateOf } from "../workspace/new-folder/git-link.ts";
import { plural } from "../formats/sizes.ts";
import { listLeases } from "../workspace/place/control-directory.ts";
import { closeView as close, openView } from "../workspace/new-folder/views.ts";
import type { WorkspaceCallOptions } from "../contract/words.ts";

/** Makes a new workspace in an absent or empty folder, equal to a point. */
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
    parts,
    standalone: standalone === true ? { populate: populateLike(workspace) } : undefined,
  });
  return {
    workspace: workspaceRef(forked.found),
    started_from: point.descriptor.save_point_id,
    save_point: publicPoint(forked.point),
    left_out: forked.leftOut.map(publicLeftOut),
  };
}

/** Returns a function that makes a store with the workspace's chunker polynomial, so large files are cut alike. */
function populateLike({ found }: Workspace): (staged: ControlPaths) => Promise<void> {
  return async (staged) => {
    const polynomial = await storePolynomial(found.control.root);
    await createEmbeddedStore(staged.root, polynomial);
  };
}

/** Writes a point, or some of its paths, into another folder; the workspace is not changed. */
export async function restoreTo(
  workspace: Workspace,
  options: RestoreOptions & { to: string },
): Promise<RestoreResult> {
  const started = performance.now();
  if (!isAbsolute(options.to))
    throw new CairnError("usage", `the folder to restore into must be an absolute path, not ${options.to}`);
  const { point, path: below } = pointMeant(workspace, options.target);
  const typed = options.paths?.map((path) => joinPath(below, normalizeTyped(path))) ?? null;
  const paths = withSidecars([], point.descriptor, typed);
  const written = await writeElsewhere(workspace, { ...options, point, to: options.to, below, paths });
  warnOfDamaged(workspace, point, { ...options, leftOut: written.leftOut });
  if (gitStateOf(options.to, workspace.root.toString("utf8")) !== null)
    options.onWarning?.(
      `${printablePath(options.to)}/.git names the git state of ${printablePath(workspace.root)}: a commit in the copy would land on its branch; \`cairn fork\` makes a worktree of its own`,
    );
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

/** Opens a read-only copy of a point until the view is closed. */
export async function view(workspace: Workspace, target: string, options: WorkspaceCallOptions): Promise<ViewLease> {
  await recoverPartials(workspace, options);
  const { lease, leftOut } = await openView(workspace, workspace.resolve(target), options);
  const damaged = leftOut.filter(({ reason }) => reason === "damaged");
  if (damaged.length > 0)
    options.onWarning?.(`not in the view: ${plural(damaged.length, "damaged entry")}; see \`cairn verify\``);
  const lacking = leftOut.filter(({ reason }) => reason === "unreadable");
  if (lacking.length > 0)
    options.onWarning?.(
      `not in the view: ${plural(lacking.length, "entry")} that could not be read when the point was saved, so the save point does not have ${lacking.length === 1 ? "it" : "them"}`,
    );
  return publicLease(lease);
}

/** Returns all open views of the control directory, oldest first. */
export function listViews(workspace: Workspace): ViewLease[] {
  return listLeases(workspace.found.control).map(publicLease);
}

/** Closes a view and removes its folder. */
export function closeView(workspace: Workspace, id: string): ViewLease {
  return publicLease(close(workspace, id));
}

function publicLease({
  view_id,
  save_point_id,
  path,
  opened_at,
  method,
}: ReturnType<typeof listLeases>[number]): ViewLease {
  return { view_id, save_point_id, path, opened_at, method };
}
