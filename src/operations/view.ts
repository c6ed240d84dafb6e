import { plural } from "../formats/sizes.ts";
import { recoverPartials } from "../workspace/fork-recovery.ts";
import { listLeases } from "../workspace/records.ts";
import { closeView as close, openView } from "../workspace/views.ts";
import type { Workspace } from "../workspace/workspace.ts";
import type { ViewLease, WorkspaceCallOptions } from "../contract/index.ts";

/** Opens a point to be looked into, read-only, until the view is closed. */
export async function view(workspace: Workspace, target: string, options: WorkspaceCallOptions): Promise<ViewLease> {
  await recoverPartials(workspace, options);
  const { lease, leftOut } = await openView(workspace, workspace.resolve(target), options);
  const damaged = leftOut.filter(({ reason }) => reason === "damaged");
  if (damaged.length > 0)
    options.onWarning?.(`not in the view: ${plural(damaged.length, "damaged entry")}; see \`cairn verify\``);
  const lacking = leftOut.filter(({ reason }) => reason === "unreadable");
  if (lacking.length > 0)
    options.onWarning?.(
      `not in the view: ${plural(lacking.length, "entry")} that could not be read, so that the save point lacks ${lacking.length === 1 ? "it" : "them"}`,
    );
  return publicLease(lease);
}

/** All open views of the control directory, oldest first. */
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
