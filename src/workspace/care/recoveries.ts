import { isAsAnnounced } from "../../clones/as-made.ts";
import type { Recovery } from "../../formats/records/control.ts";
import { failpoint } from "../../failpoint.ts";
import { writeState } from "../place/control-directory.ts";
import { CLEANUP } from "../keep/cleanup.ts";
import { REMOVED_PATHS } from "../keep/remove-paths.ts";
import { CONVERSION } from "./convert.ts";
import { FORK_REMOVAL } from "./fork-aside.ts";
import { EXCHANGE } from "../restore/exchange.ts";
import { MISSING_FOLDER } from "../open/missing-folder.ts";
import { removeHeldTrees } from "../points/held-trees.ts";
import { NEW_FOLDER } from "../new-folder/recover-folders.ts";
import type { Claim } from "../points/point-files.ts";
import type { Points } from "../points/points.ts";
import { RESTORE } from "../restore/recover-restore.ts";
import { DUMPS_WORK } from "../save/dumps.ts";
import { SEAL } from "../save/seal.ts";
import type { Recoverable, Workspace, WorkspaceCall } from "../open/workspace.ts";

const SAVE: Recoverable = {
  kind: "save",
  where: "`points/<number>/intent`, the claim of the number",
  steps: [
    "the claim: the number's folder, with the id of the point",
    "content, trees, manifest and snapshot are stored; with a clone driver the folder is cloned into the claim",
    "● `descriptor.json` gets its name. On btrfs the claim has the descriptor before, and the snapshot is the commit",
    "head moves to the point; the claim is removed",
  ],
  before: "removes the claim, its clone and its snapshot; complete packs are left for the next save",
  after: "moves head to the point, unless head was moved since, and removes the claim",
  isLeft: ({ points }) => points.unfinished().length > 0 || points.unsettled().length > 0,
  recover: async (workspace, call) => [...(await takeBackSaves(workspace, call)), ...moveHead(workspace)],
};

/** Work of a workspace that a kill can interrupt, in the order in which the next command ends it. */
const RECOVERIES: readonly Recoverable[] = [
  SAVE,
  DUMPS_WORK,
  SEAL,
  CLEANUP,
  REMOVED_PATHS,
  NEW_FOLDER,
  FORK_REMOVAL,
  CONVERSION,
  EXCHANGE,
  RESTORE,
  MISSING_FOLDER,
];

export function allRecoveries(): readonly Recoverable[] {
  return RECOVERIES;
}

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
