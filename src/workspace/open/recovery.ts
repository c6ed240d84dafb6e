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

/** Number of the last recoveries that the state remembers. */
const REMEMBERED = 10;

/** True when an unclean end left something to be finished; cheap, and takes no lock. */
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
 * Finishes or takes back what an earlier unclean end left. For the holder of the workspace's lock. A call that is stopped
 * leaves what was not begun to the next one: `interrupted`. `permission` where something is another user's to finish.
 * `usesPacks`: see `removeTemporaries`.
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
  // Of one instant is what one call recovered.
  const at = new Date().toISOString();
  const all = [...state.recovered, ...recovered.map((each) => ({ at, ...each }))];
  writeState(workspace.found.paths, { ...state, recovered: all.slice(-REMEMBERED) });
  throwIfAborted(call.signal);
}
