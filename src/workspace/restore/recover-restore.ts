import { type Recovery, withOperation } from "../../formats/records/control.ts";
import { recordPath } from "../../formats/records/record.ts";
import type { RestoreFile } from "../../formats/records/restore.ts";
import type { MadeFolder } from "../../fs/remove-all.ts";
import { keepAnnounced, makeMissing } from "../open/missing-folder.ts";
import { keepWrittenTo, type SavedNodes } from "./kept-displaced.ts";
import { leftOutAfter, StepRunner } from "./apply.ts";
import { type LeftOutEntry, SHOWN_LEFT_OUT } from "../points/left-out.ts";
import { failpoint } from "../../failpoint.ts";
import type { NotSet } from "../../archive/write/node-writer.ts";
import { isFolderThere, writeState } from "../place/control-directory.ts";
import { setRoot } from "../points/root-changes.ts";
import { flushUnlessOrdered, removeStaging, rootBefore, stagingNow, syncRemoval } from "./staging.ts";
import { decodeSteps, type Steps } from "../points/steps.ts";
import { type Ended, journaled, restoredInPart } from "../open/unfinished-work.ts";
import type { Workspace, WorkspaceCall } from "../open/workspace.ts";
import fs from "node:fs";

/** A restore in progress. `made`: its staging directory, if this process made it. */
interface Restoring {
  intent: RestoreFile;
  made?: MadeFolder;
}

/**
 * Completes a restore from the exchanged entries to the record; may be repeated. Returns metadata that could not be set
 * on the folder itself.
 */
export async function finishRestore(
  workspace: Workspace,
  call: WorkspaceCall,
  restore: Restoring & { steps: Steps; saved?: SavedNodes },
): Promise<NotSet[]> {
  const { intent, steps, saved, made } = restore;
  const { undo_id: undoId, staging } = intent;
  await keepWrittenTo(workspace, call, { undoId, staging, steps, saved });
  failpoint("restore.displaced-checked");
  const atFirst = intent.root === null ? [] : setRoot(workspace.root, intent.root);
  await flushUnlessOrdered(workspace, workspace.root, { hasContent: false });
  failpoint("restore.folder-durable");
  workspace.requireLock();
  const state = workspace.state();
  const { kind, target, paths, changed, keep_present, keep_git, merged, at } = intent;
  const operation = {
    kind,
    at,
    undo_id: undoId,
    restored_to: target,
    paths,
    ...(changed ? { changed } : {}),
    ...(keep_present ? { keep_present } : {}),
    ...(keep_git ? { keep_git } : {}),
    ...(merged ? { merged } : {}),
  };
  const head = paths === null ? workspace.standsAt(target) : state.head;
  writeState(workspace.found.paths, { ...withOperation(state, operation), head });
  failpoint("restore.recorded");
  keepAnnounced(workspace);
  const isRootKept = Iterator.from(steps).every((step) => step.path.includes(0x2f));
  const root = intent.root ?? rootBefore(workspace, intent);
  const keepsTimes = intent.root !== null || isRootKept;
  const atLast = removeStaging(workspace, intent, { root, keepsTimes, made, onWarning: call.onWarning });
  const notSet = intent.root === null ? [] : (atLast ?? atFirst);
  failpoint("restore.staging-removed");
  syncRemoval(workspace, intent);
  workspace.requireLock();
  workspace.unfinished("restore").end();
  return notSet;
}

/**
 * Removes a restore that has not begun to change the folder. Does nothing without the lock: the journal may then belong
 * to another process.
 */
export function takeBackRestore(
  workspace: Workspace,
  { intent, made }: Restoring,
  { onWarning }: Pick<WorkspaceCall, "onWarning">,
): void {
  if (!workspace.isStillLocked) return;
  removeStaging(workspace, intent, { root: rootBefore(workspace, intent), keepsTimes: true, made, onWarning });
  syncRemoval(workspace, intent);
  workspace.unfinished("restore").end();
}

export const RESTORE = journaled({
  kind: "restore",
  operation: "restore",
  where: "`journal/restore.json`, with `restore.steps`",
  steps: [
    "the present is saved as the undo point",
    "the record names the target, the undo point and a staging folder",
    "new entries are staged there",
    "● `restore.steps`: the entries to exchange, in their order",
    "each entry changes places with its staged one, unless it was changed since; a file that its owner would lose is written in place, under a lease; displaced entries are checked again",
    "head moves; the staging folder and the record are removed",
  ],
  before: "removes the staging folder; the folder is unchanged",
  after: "exchanges the remaining entries and moves head",
  changesFolder: true,
  unreadable: restoredInPart,
  // Without the staging directory every step was done and recorded, or the folder was lost with it.
  isCommitted: (workspace, work) =>
    workspace.unfinished("restore").hasSteps &&
    (fs.existsSync(stagingOf(workspace, work)) || isRecorded(workspace, work)),
  finish,
  async takeBack(workspace, work, call) {
    const { kind: operation, target, undo_id: undo } = work;
    // The staging directory may have been in the folder, and was removed with it.
    const detail = workspace.unfinished("restore").hasSteps
      ? `the folder was removed or unmounted before the restore of ${target.slice(0, 8)} was recorded; the state before the restore is the save point ${undo.slice(0, 8)}`
      : `the restore of ${target.slice(0, 8)} had not begun to change the folder`;
    takeBackRestore(workspace, { intent: { ...work, staging: stagingOf(workspace, work) } }, call);
    return { operation, detail };
  },
});

const stagingOf = (workspace: Workspace, { staging }: RestoreFile): string => stagingNow(workspace, staging);

const isRecorded = (workspace: Workspace, { at }: RestoreFile): boolean =>
  workspace.state().operations.at(-1)?.at === at;

async function finish(workspace: Workspace, work: RestoreFile, call: WorkspaceCall): Promise<Ended> {
  const { steps, leftOut } = workspace.unfinished("restore").readSteps(decodeSteps)!;
  const intent = { ...work, staging: stagingOf(workspace, work) };
  const { kind: operation } = work;
  const short = work.target.slice(0, 8);
  if (!fs.existsSync(intent.staging)) {
    takeBackRestore(workspace, { intent }, call);
    return { operation, detail: `the restore of ${short} was complete`, ...incompleteOf(leftOut) };
  }
  // The folder was removed after the kill. Displaced entries are still in the staging directory.
  if (!isFolderThere(workspace.root)) await makeMissing(workspace);
  const { root } = workspace;
  const runner = new StepRunner({ root, staging: intent.staging, resuming: true, hidesIgnored: () => true });
  const applied = runner.run(steps);
  const notSet = await finishRestore(workspace, call, { intent, steps });
  return {
    operation,
    detail: `the restore of ${short} was interrupted and has been finished`,
    kept: applied.kept.map(({ path: where }) => recordPath(where)),
    ...incompleteOf(leftOutAfter(leftOut, applied, notSet)),
  };
}

function incompleteOf(leftOut: readonly LeftOutEntry[]): Pick<Recovery, "incomplete"> {
  if (leftOut.length === 0) return {};
  const shown = leftOut.slice(0, SHOWN_LEFT_OUT).map(({ path: where, ...why }) => ({ ...recordPath(where), ...why }));
  return { incomplete: { count: leftOut.length, left_out: shown } };
}
