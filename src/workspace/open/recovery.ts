import { append } from "../../append.ts";
import { advice, CairnError, call as callOf, either, throwIfAborted } from "../../errors.ts";
import type { Recovery } from "../../formats/records/control.ts";
import { failpoint } from "../../failpoint.ts";
import { writeState } from "../place/control-directory.ts";
import { printablePath, shellPath } from "../../fs/paths/safe-path.ts";
import { requireAnswer } from "../../fs/silent-mounts.ts";
import { ownerBesidesUs } from "../place/owners.ts";
import { removeTemporaries } from "./temporaries.ts";
import type { Workspace, WorkspaceCall } from "./workspace.ts";

/** Number of recoveries that the state remembers. */
const REMEMBERED = 10;

/** True if a killed operation left work to finish; cheap, and takes no lock. */
export function needsRecovery(workspace: Workspace): boolean {
  return workspace.parts.recoveries.some((work) => work.isLeft(workspace));
}

/**
 * Throws `permission` if another user's restore or conversion was interrupted: only that user may finish it. Its
 * journal decides owners and modes of files, and root must not trust another user's journal.
 */
function requireOwnJournals(workspace: Workspace): void {
  const { folder } = workspace.found;
  for (const { journaled } of workspace.parts.recoveries) {
    if (journaled?.changesFolder !== true) continue;
    const { files } = journaled.record(workspace);
    const owner = files.map(ownerBesidesUs).find((uid) => uid !== null);
    if (owner === undefined) continue;
    throw new CairnError(
      "permission",
      `a ${journaled.operation} of the user ${owner} was interrupted, and only that user may finish it`,
      {
        hint: advice`run this to finish it as that user${either(`: sudo -u '#${owner}' cairn -C ${shellPath(folder)} status`, advice` (uid ${owner}): ${callOf("open", "open", printablePath(folder))}`)}`,
        details: { journal: files[0], uid: owner },
      },
    );
  }
}

/**
 * Finishes or rolls back killed operations. The caller holds the workspace's lock. An aborted call leaves the rest to the next
 * one and throws `interrupted`. Throws `permission` if only another user may finish an operation. `usesPacks`: see
 * {@link removeTemporaries}.
 */
export async function recoverWorkspace(workspace: Workspace, call: WorkspaceCall, usesPacks = false): Promise<void> {
  removeTemporaries(workspace, usesPacks);
  if (!needsRecovery(workspace)) return;
  requireAnswer(workspace.root);
  requireOwnJournals(workspace);
  call.onProgress?.({ phase: "recovering", done: 0 });
  const recovered: Recovery[] = [];
  for (const work of workspace.parts.recoveries) {
    if (call.signal?.aborted === true) break;
    append(recovered, await work.recover(workspace, call));
  }
  failpoint("recovery.restored");
  const state = workspace.state();
  // All recoveries of one call have the same time.
  const at = new Date().toISOString();
  const all = [...state.recovered, ...recovered.map((each) => ({ at, ...each }))];
  writeState(workspace.found.paths, { ...state, recovered: all.slice(-REMEMBERED) });
  throwIfAborted(call.signal);
}
