import { append } from "../append.ts";
import fs from "node:fs";
import { isAsAnnounced } from "../engines/tree/as-made.ts";
import { throwIfAborted } from "../errors.ts";
import type { Recovery } from "../formats/control.ts";
import { failpoint } from "../failpoint.ts";
import { writeState } from "./records.ts";
import { recoverCleanup } from "./cleanup.ts";
import { recoverConversion } from "./convert.ts";
import { recoverExchange } from "./exchange.ts";
import { takeBackFolder } from "./give-back.ts";
import { removeHeldTrees } from "./held-trees.ts";
import { isAnyJournalThere, requireOwnJournals } from "./journals.ts";
import { recoverPartials } from "./fork-recovery.ts";
import { deadPartials } from "./partial-folder.ts";
import type { Claim } from "./point-files.ts";
import type { Points } from "./points.ts";
import { recoverRestore } from "./restore-recovery.ts";
import { recoverSeal } from "./seal-point.ts";
import { removeTemporaries } from "./temporaries.ts";
import type { Workspace, WorkspaceCall } from "./workspace.ts";

/** How many of the last recoveries the state remembers. */
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

/** What finishes or takes back one kind of operation, in the order in which they must be done; each leaves the others as a kill would. */
const RECOVERIES: readonly ((workspace: Workspace, call: WorkspaceCall) => Promise<Recovery[]>)[] = [
  takeBackSaves,
  async (workspace) => moveHead(workspace),
  async (workspace) => {
    await recoverSeal(workspace);
    return [];
  },
  recoverCleanup,
  recoverPartials,
  async (workspace) => listOf(await recoverConversion(workspace)),
  async (workspace, call) => listOf(await recoverExchange(workspace, call)),
  async (workspace, call) => listOf(await recoverRestore(workspace, call)),
  async (workspace) => listOf(takeBackFolder(workspace)),
];

/**
 * Finishes or takes back what an earlier unclean end left. For the holder of the workspace's lock. A call that is stopped
 * leaves what was not begun to the next one: `interrupted`. `permission` where something is another user's to finish.
 */
export async function recoverWorkspace(workspace: Workspace, call: WorkspaceCall): Promise<void> {
  removeTemporaries(workspace);
  if (!needsRecovery(workspace)) return;
  requireOwnJournals(workspace);
  call.onProgress?.({ phase: "recovering", done: 0 });
  const recovered: Recovery[] = [];
  for (const recover of RECOVERIES) {
    if (call.signal?.aborted === true) break;
    append(recovered, await recover(workspace, call));
  }
  failpoint("recovery.restored");
  const state = workspace.state();
  // Of one instant is what one call recovered.
  const at = new Date().toISOString();
  const all = [...state.recovered, ...recovered.map((each) => ({ at, ...each }))];
  writeState(workspace.found.paths, { ...state, recovered: all.slice(-REMEMBERED) });
  throwIfAborted(call.signal);
}

function listOf(recovery: Recovery | null): Recovery[] {
  return recovery === null ? [] : [recovery];
}

async function takeBackSaves(workspace: Workspace, call: WorkspaceCall): Promise<Recovery[]> {
  const claims = finishAnnounced(workspace.points);
  if (claims.length === 0) return [];
  await workspace.engine.discard(claims.flatMap(({ id }) => (id === null ? [] : [id])));
  const left = claims.map(({ sequence }) => sequence);
  const { temporary } = workspace.found.control;
  await removeHeldTrees(workspace.points, left, { temporary, onWarning: call.onWarning });
  failpoint("recovery.discarded");
  workspace.points.removeLeftovers();
  const detail = "a save ended before its point was complete; it left nothing";
  return [{ operation: "save", outcome: "rolled_back", detail, kept: [] }];
}

/** Makes points of claims whose tree is the one they announce; head follows. Returns the other claims. */
function finishAnnounced(points: Points): Claim[] {
  return points.unfinished().filter(({ sequence, announced }) => {
    const lastChange = announced?.content.held?.last_change;
    if (announced === null || lastChange === undefined) return true;
    if (!isAsAnnounced(points.pathsOf(sequence).tree, lastChange)) return true;
    points.commit(announced, { keepClaim: true });
    return false;
  });
}

/** A point was complete, and its save was killed before the workspace stood at it. */
function moveHead(workspace: Workspace): Recovery[] {
  const { points } = workspace;
  const done: Recovery[] = [];
  for (const sequence of points.unsettled()) {
    const state = workspace.state();
    const point = points.readOrNull(sequence);
    if (point === null) {
      // Head cannot stand at it; it is listed as damaged.
      points.settle(sequence);
      continue;
    }
    const { save_point_id: id, parent_id: parent, undo } = point.descriptor;
    // Anything newer moved head on its own; where head is not the parent, it moved since.
    if (sequence === points.sequences().at(-1) && !undo && parent === state.head) {
      writeState(workspace.found.paths, { ...state, head: id });
      const detail = `the save of ${id.slice(0, 8)} was complete but for its end; the workspace stands at it now`;
      done.push({ operation: "save", outcome: "completed", detail, kept: [] });
    }
    failpoint("recovery.head-moved");
    points.settle(sequence, { killed: true });
  }
  return done;
}
