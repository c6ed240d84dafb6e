import { isAsAnnounced } from "../../clones/as-made.ts";
import type { Recovery } from "../../formats/records/control.ts";
import { failpoint } from "../../failpoint.ts";
import { writeState } from "../place/control-directory.ts";
import { recoverCleanup } from "../keep/cleanup.ts";
import { recoverRemovedPaths } from "../keep/remove-paths.ts";
import { recoverConversion } from "./convert.ts";
import { recoverExchange } from "../restore/exchange.ts";
import { takeBackFolder } from "../open/missing-folder.ts";
import { removeHeldTrees } from "../points/held-trees.ts";
import { recoverPartials } from "../new-folder/recover-folders.ts";
import type { Claim } from "../points/point-files.ts";
import type { Points } from "../points/points.ts";
import { recoverRestore } from "../restore/recover-restore.ts";
import { recoverSeal } from "../save/seal.ts";
import type { Recover, Workspace, WorkspaceCall } from "../open/workspace.ts";

/** Functions that finish or take back what a killed command left, in the order in which it must be done. */
export const RECOVERIES: readonly Recover[] = [
  takeBackSaves,
  async (workspace) => moveHead(workspace),
  recoverSeal,
  recoverCleanup,
  recoverRemovedPaths,
  recoverPartials,
  recoverConversion,
  recoverExchange,
  recoverRestore,
  async (workspace) => takeBackFolder(workspace),
];

async function takeBackSaves(workspace: Workspace, call: WorkspaceCall): Promise<Recovery[]> {
  const claims = finishAnnounced(workspace.points);
  if (claims.length === 0) return [];
  await workspace.engine.discard(claims.flatMap(({ id }) => (id === null ? [] : [id])));
  const left = claims.map(({ sequence }) => sequence);
  await removeHeldTrees(workspace.points, left, { control: workspace.found.control, onWarning: call.onWarning });
  failpoint("recovery.discarded");
  workspace.points.removeLeftovers();
  const detail = "a save was interrupted before its point was complete; its leftovers were removed";
  return [{ operation: "save", outcome: "rolled_back", detail, kept: [] }];
}

/** Makes points of claims whose tree is the one they announce; head follows. Returns the other claims. */
function finishAnnounced(points: Points): Claim[] {
  return points.unfinished().filter(({ sequence, announced }) => {
    const lastChange = announced?.content.held?.last_change;
    if (announced === null || lastChange === undefined) return true;
    if (!isAsAnnounced(points.pathsOf(sequence).tree, lastChange)) return true;
    points.identifyTree(sequence);
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
      const detail = `the save of ${id.slice(0, 8)} was interrupted after the point was complete; head is this point now`;
      done.push({ operation: "save", outcome: "completed", detail, kept: [] });
    }
    failpoint("recovery.head-moved");
    points.settle(sequence, { killed: true });
  }
  return done;
}
