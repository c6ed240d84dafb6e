import { type PlacedWorkspace, readWorkspace, withFolder, writeWorkspace } from "./control-directory.ts";
import { type FoundWorkspace, hasOtherRoot, liesBeside } from "./find-workspace.ts";

/** What a workspace's record says of its folder, and how it is told what lies at the path now. */

/** True when another directory lies at the folder's path than the one that is recorded now. */
export function isOtherFolder(found: FoundWorkspace): boolean {
  const recorded = recordOf(found);
  // It is found from beside it, and changes its inode with every host that it moves to.
  return !liesBeside(found.controlFile, recorded) && hasOtherRoot(recorded, found.folder);
}

/** Records what lies at the folder's path as the workspace's folder. For the holder of the workspace's lock. */
export function recordFolder(found: FoundWorkspace): void {
  writeWorkspace(found.control, withFolder(found.control, recordOf(found), found.folder));
}

/** As it is now: others may have written it since it was found. */
function recordOf({ control, workspace }: FoundWorkspace): PlacedWorkspace {
  return readWorkspace(control, workspace.name) ?? workspace;
}
