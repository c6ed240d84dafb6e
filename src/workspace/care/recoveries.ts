import { isAsAnnounced } from "../../clones/as-made.ts";
import type { Recovery } from "../../formats/records/control.ts";
import { failpoint } from "../../failpoint.ts";
import { writeState } from "../place/control-directory.ts";
import { CLEANUP } from "../keep/cleanup.ts";
import { REMOVED_PATHS } from "../keep/remove-paths.ts";
import { CONVERSION } from "./convert.ts";
import { recoverExchange } from "../restore/exchange.ts";
import { takeBackFolder } from "../open/missing-folder.ts";
import {
  EXCHANGE_JOURNAL,
  FOLDER_JOURNAL,
  readExchangeIntent,
  readFolderIntent,
  RestoreJournal,
} from "../points/journals.ts";
import { removeHeldTrees } from "../points/held-trees.ts";
import { NEW_FOLDER } from "../new-folder/recover-folders.ts";
import type { Claim } from "../points/point-files.ts";
import type { Points } from "../points/points.ts";
import { recoverRestore } from "../restore/recover-restore.ts";
import { SEAL } from "../save/seal.ts";
import type { Recoverable } from "../open/unfinished-work.ts";
import type { Workspace, WorkspaceCall } from "../open/workspace.ts";
import { lstatSync } from "node:fs";
import path from "node:path";

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

/** The entry of work that is not in the form of `journaled` yet. */
function restoring(
  names: readonly string[],
  read: (journal: string) => unknown,
  told: Pick<Recoverable, "kind" | "where" | "steps" | "before" | "after">,
  recover: (workspace: Workspace, call: WorkspaceCall) => Promise<Recovery | null> | Recovery | null,
): Recoverable {
  const files = ({ found: { paths } }: Workspace): string[] =>
    names.map((name) => path.join(paths.journal, name)).filter((file) => lstatSync(file, { throwIfNoEntry: false }));
  const isLeft = (workspace: Workspace): boolean => files(workspace)[0]?.endsWith(names[0]!) === true;
  return {
    ...told,
    isLeft,
    async recover(workspace, call) {
      const done = await recover(workspace, call);
      return done === null ? [] : [done];
    },
    journaled: {
      operation: "restore",
      changesFolder: true,
      unreadable: (workspace) => `part of the folder may be restored and part not; ${undoOf(workspace)}`,
      record: (workspace) => ({
        files: files(workspace),
        isLeft: isLeft(workspace),
        read: () => read(workspace.found.paths.journal),
      }),
    },
  };
}

/** Tells how to get the state before the restore. */
function undoOf(workspace: Workspace): string {
  const undo = workspace.points.list().points.find(({ descriptor }) => descriptor.undo);
  return undo === undefined
    ? "the undo point of the restore is missing"
    : `the state before the restore is the save point ${undo.descriptor.save_point_id.slice(0, 8)}`;
}

const EXCHANGE = {
  kind: "exchange",
  where: "`journal/exchange`",
  steps: [
    "the record names a copy of the target's clone in `tmp/`",
    "the clone is copied",
    "● folder and copy change places in one call; the file system makes record and exchange durable together",
    "the displaced tree becomes the undo point; head moves",
    "the displaced tree and the record are removed",
  ],
  before: "removes the copy",
  after: "makes the undo point, moves head, and removes the displaced tree",
};

const RESTORE = {
  kind: "restore",
  where: "`journal/restore.json`, with `restore.steps`",
  steps: [
    "the present is saved as the undo point",
    "the record names the target, the undo point and a staging folder",
    "new entries are staged there",
    "● `restore.steps`: the entries to exchange, in their order",
    "each entry changes places with its staged one, unless it was changed since; displaced entries are checked again",
    "head moves; the staging folder and the record are removed",
  ],
  before: "removes the staging folder; the folder is unchanged",
  after: "exchanges the remaining entries and moves head",
};

const MISSING_FOLDER = {
  kind: "missing-folder",
  where: "`journal/folder`",
  steps: [
    "the record names a new folder beside the path of the missing one",
    "the folder is made and gets its path",
    "a restore fills it; its commit point ● is this one's, too",
    "the folder is recorded as the workspace's; the record is removed",
  ],
  before: "removes the folder if it is empty",
  after: "finishes the restore, then records the folder",
};

/** Work of a workspace that a kill can interrupt, in the order in which the next command ends it. */
export const RECOVERIES: readonly Recoverable[] = [
  SAVE,
  SEAL,
  CLEANUP,
  REMOVED_PATHS,
  NEW_FOLDER,
  CONVERSION,
  restoring([EXCHANGE_JOURNAL], readExchangeIntent, EXCHANGE, recoverExchange),
  restoring(
    ["restore.json", "restore.steps"],
    (journal) => new RestoreJournal(journal).read(),
    RESTORE,
    recoverRestore,
  ),
  restoring([FOLDER_JOURNAL], readFolderIntent, MISSING_FOLDER, takeBackFolder),
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
