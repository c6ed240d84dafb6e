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

/** Functions that finish or take back operations of killed commands, in the required order. */
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

/** Commits the announced points whose tree was made; head follows later. Returns the other claims. */
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

/** Moves head to a point whose save was killed between the commit and the move of head. */
function moveHead(workspace: Workspace): Recovery[] {
  const { points } = workspace;
  const done: Recovery[] = [];
  for (const sequence of points.unsettled()) {
    const state = workspace.state();
    const point = points.readOrNull(sequence);
    if (point === null) {
      // Head cannot be set to a damaged point; the point is listed as damaged.
      points.settle(sequence);
      continue;
    }
    const { save_point_id: id, parent_id: parent, undo } = point.descriptor;
    // A newer save moved head itself. If head is not the parent, head was moved since.
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
