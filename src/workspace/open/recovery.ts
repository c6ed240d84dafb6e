import { append } from "../../append.ts";
import { throwIfAborted } from "../../errors.ts";
import type { Recovery } from "../../formats/records/control.ts";
import { failpoint } from "../../failpoint.ts";
import { writeState } from "../place/control-directory.ts";
import { isAnyJournalThere, requireOwnJournals } from "../points/journals.ts";
import { deadPartials } from "../place/partials.ts";
import { removeTemporaries } from "./temporaries.ts";
import type { Workspace, WorkspaceCall } from "./workspace.ts";
import fs from "node:fs";

/** Number of recoveries that the state remembers. */
const REMEMBERED = 10;

/** True if a killed operation left work to finish; cheap, and takes no lock. */
export function needsRecovery(workspace: Workspace): boolean {
  return (
    isAnyJournalThere(workspace.found.paths.journal) ||
    workspace.points.unfinished().length > 0 ||
    workspace.points.unsettled().length > 0 ||
    deadPartials(workspace.found.control).length > 0 ||
    fs.existsSync(workspace.found.paths.original)
  );
}

/**
 * Finishes or rolls back killed operations. The caller holds the workspace's lock. An aborted call leaves the rest to the next
 * one and throws `interrupted`. Throws `permission` if only another user may finish an operation. `usesPacks`: see
 * {@link removeTemporaries}.
 */
export async function recoverWorkspace(workspace: Workspace, call: WorkspaceCall, usesPacks = false): Promise<void> {
  removeTemporaries(workspace, usesPacks);
  if (!needsRecovery(workspace)) return;
  requireOwnJournals(workspace);
  call.onProgress?.({ phase: "recovering", done: 0 });
  const recovered: Recovery[] = [];
  for (const recover of workspace.parts.recoveries) {
    if (call.signal?.aborted === true) break;
    const done = await recover(workspace, call);
    append(recovered, done === null ? [] : Array.isArray(done) ? done : [done]);
  }
  failpoint("recovery.restored");
  const state = workspace.state();
  // All recoveries of one call have the same time.
  const at = new Date().toISOString();
  const all = [...state.recovered, ...recovered.map((each) => ({ at, ...each }))];
  writeState(workspace.found.paths, { ...state, recovered: all.slice(-REMEMBERED) });
  throwIfAborted(call.signal);
}
