import { advice, CairnError, call } from "../errors.ts";
import type { ForkRemoval } from "../formats/records/partial.ts";
import { rawPath } from "../formats/records/record.ts";
import { printablePath, releaseLine, shellPath } from "../fs/paths/safe-path.ts";
import type { Workspace } from "../workspace/open/workspace.ts";
import { isReleased, listWorkspaces } from "../workspace/place/control-directory.ts";
import { type FoundWorkspace, realPathOf, workspaceAt, workspaceNamed } from "../workspace/place/find-workspace.ts";

/** Finds the forks of a workspace. */

/** Message of the point of a fork's present. */
export const COMES_HOME = "before the fork comes home";

/** Returns the other workspace with a name or a folder. Throws `not_found`. */
export function forkOf(workspace: Workspace, fork: string): FoundWorkspace {
  const { control, workspace: own } = workspace.found;
  const named = workspaceNamed(control, fork) ?? workspaceAt(realPathOf(fork));
  if (named === null || named.workspace.id === own.id)
    throw new CairnError("not_found", `there is no other workspace called ${JSON.stringify(fork.slice(0, 80))}`, {
      hint: advice`${call("workspaces", "listWorkspaces")} lists them`,
    });
  return named;
}

/**
 * Like {@link forkOf}. Throws `refused` for a workspace that is no fork of this one, or has a store of its own: its
 * points would be lost.
 */
export function ownForkOf(workspace: Workspace, fork: string): FoundWorkspace {
  const found = forkOf(workspace, fork);
  const { control, workspace: own } = workspace.found;
  const from = found.workspace.origin?.workspace_id;
  const shown = printablePath(found.folder);
  if (!isBeside(workspace, found) || from === undefined)
    throw new CairnError(
      "refused",
      `${shown} is not a fork of this workspace in the same control directory, so it is not removed`,
      { hint: advice`to end that workspace: ${releaseLine(found.folder)}` },
    );
  if (from === own.id) return found;
  // The fork of a fork that is gone is removed from any workspace beside it.
  const original = listWorkspaces(control).find(({ workspace: each }) => each?.id === from && !isReleased(each));
  if (original === undefined || original.workspace === null) return found;
  const line = call(
    `-C ${shellPath(rawPath(original.workspace))} fork --remove ${shellPath(found.folder)}`,
    "removeFork",
    shown,
  );
  throw new CairnError(
    "refused",
    `${shown} is a fork of ${original.name}, not of this workspace, so it is not removed`,
    {
      hint: advice`remove it from there: ${line}`,
    },
  );
}

export function isBeside(workspace: Workspace, { control }: FoundWorkspace): boolean {
  return control.root === workspace.found.control.root;
}

/** True if another fork has got the name or the path of a fork that was removed. */
export function isTakenAgain({ found: { control } }: Workspace, { workspace: gone, target }: ForkRemoval): boolean {
  return listWorkspaces(control).some(
    ({ workspace: each }) =>
      each !== null &&
      !isReleased(each) &&
      (each.name === gone.name || Buffer.compare(rawPath(each), rawPath(target)) === 0),
  );
}
