import type { CallOptions } from "../../contract/words.ts";
import { CairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { rawPath, recordPath } from "../../formats/records/record.ts";
import {
  listWorkspaces,
  type PlacedWorkspace,
  readControl,
  withFolder,
  withoutRelease,
  writeWorkspace,
} from "./control-directory.ts";
import { type ControlPaths, controlPaths } from "./control-layout.ts";
import { liesBeside } from "./find-workspace.ts";
import {
  lockingOf,
  lockRegistry,
  type NewRegistration,
  noteSelfContained,
  registerWorkspace,
  unregister,
} from "./registry.ts";

/** The workspace that was kept at a folder's old path, found also when an earlier relocation was killed half way. */
export interface Kept {
  readonly control: ControlPaths;
  readonly workspace: PlacedWorkspace;
}

/** Has the workspace with this id follow its folder, which the caller has moved, to another real path. Throws `not_found`, `damaged`. */
export async function followFolder(
  { root, id }: { root: string; id: string },
  to: Buffer,
  options: CallOptions,
): Promise<void> {
  using _registry = await lockRegistry(lockingOf("relocate", options));
  const control = controlPaths(root);
  const workspace = listWorkspaces(control).find((each) => each.workspace?.id === id)?.workspace ?? null;
  if (workspace === null) throw new CairnError("not_found", `${root} has no workspace ${id}`);
  const from = Buffer.from(rawPath(workspace));
  if (!from.equals(to)) moveWorkspace({ control, workspace }, from, to);
}

/**
 * Records that the folder lies at another real path now. The new path is registered before the workspace's record is
 * replaced, which is the commit point: killed before, the old path is the workspace's, and afterwards the new one.
 */
export function moveWorkspace({ control, workspace }: Kept, from: Buffer, to: Buffer): void {
  const controlFile = readControl(control);
  if (controlFile === null) throw new CairnError("not_found", `${control.root} no longer exists`);
  const entry: NewRegistration = {
    folder: to,
    control: control.root,
    controlId: controlFile.id,
    workspaceId: workspace.id,
    workspaceName: workspace.name,
  };
  if (liesBeside(controlFile, workspace)) noteSelfContained(entry);
  else {
    registerWorkspace(entry);
    failpoint("relocate.registered");
  }
  const moved = withoutRelease(withFolder(control, workspace, to));
  const isElsewhere = !from.equals(to);
  writeWorkspace(control, isElsewhere ? { ...moved, relocated_from: recordPath(from) } : moved);
  failpoint("relocate.moved");
  if (isElsewhere) unregister(from);
}
