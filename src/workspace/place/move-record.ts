import type { CallOptions } from "../../contract/words.ts";
import { CairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { rawPath, recordPath } from "../../formats/records/record.ts";
import type { Told } from "../../fs/unfinished.ts";
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
import { entryOf, lockingOf, lockRegistry, noteSelfContained, registerWorkspace, unregister } from "./registry.ts";

/** The workspace at a folder's old path, also if an earlier relocation was killed half way. */
export interface Kept {
  readonly control: ControlPaths;
  readonly workspace: PlacedWorkspace;
}

/** Records the new real path of a folder that the caller has moved, for the workspace with this id. Throws `not_found`, `damaged`. */
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

export const RELOCATION: Told = {
  kind: "relocation",
  where: "the registration of the new path",
  steps: [
    "the new path is registered, too",
    "● the workspace's own record names the new path, and the old one as `relocated_from`",
    "the registration of the old path is removed",
  ],
  before: "keeps the workspace at the old path; `relocate` may be repeated",
  after: "finds the workspace at the new path",
};

/** Records a folder's new real path, by the steps of {@link RELOCATION}. */
export function moveWorkspace({ control, workspace }: Kept, from: Buffer, to: Buffer): void {
  const controlFile = readControl(control);
  if (controlFile === null) throw new CairnError("not_found", `${control.root} no longer exists`);
  const entry = entryOf({ folder: to, control, controlFile, workspace });
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
