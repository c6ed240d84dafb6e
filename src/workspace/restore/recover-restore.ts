import { type Recovery, withOperation } from "../../formats/records/control.ts";
import { rawPath, recordPath } from "../../formats/records/record.ts";
import { CairnError } from "../../errors.ts";
import { joinPath } from "../../formats/bytes.ts";
import { listedNames, printablePath } from "../../fs/paths/safe-path.ts";
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
import { RestoreJournal } from "../points/journals.ts";
import type { Steps } from "../points/steps.ts";
import type { Workspace, WorkspaceCall } from "../open/workspace.ts";
import fs from "node:fs";
import path from "node:path";

/** A restore in progress. `made`: its staging directory, if this process made it. */
interface Restoring {
  intent: RestoreFile;
  journal: RestoreJournal;
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
  const { intent, steps, journal, saved, made } = restore;
  const { undo_id: undoId, staging } = intent;
  await keepWrittenTo(workspace, call, { undoId, staging, steps, saved });
  failpoint("restore.displaced-checked");
  const atFirst = intent.root === null ? [] : setRoot(workspace.root, intent.root);
  await flushUnlessOrdered(workspace, workspace.root, { hasContent: false });
  failpoint("restore.folder-durable");
  workspace.requireLock();
  const state = workspace.state();
  const { kind, target, paths, keep_present, at } = intent;
  const operation = {
    kind,
    at,
    undo_id: undoId,
    restored_to: target,
    paths,
    ...(keep_present ? { keep_present } : {}),
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
  journal.end();
  return notSet;
}

/**
 * Removes a restore that has not begun to change the folder. Does nothing without the lock: the journal may then belong
 * to another process.
 */
export function takeBackRestore(
  workspace: Workspace,
  { intent, journal, made }: Restoring,
  { onWarning }: Pick<WorkspaceCall, "onWarning">,
): void {
  if (!workspace.isStillLocked) return;
  removeStaging(workspace, intent, { root: rootBefore(workspace, intent), keepsTimes: true, made, onWarning });
  syncRemoval(workspace, intent);
  journal.end();
}

/** Finishes a restore killed after its commit, or takes back one killed before. Returns null if there was none. */
export async function recoverRestore(workspace: Workspace, call: WorkspaceCall): Promise<Recovery | null> {
  const journal = new RestoreJournal(workspace.found.paths.journal);
  const left = journal.read();
  if (left === null) return null;
  const intent = { ...left.intent, staging: stagingNow(workspace, left.intent.staging) };
  const { kind: operation } = intent;
  const { steps } = left;
  const short = intent.target.slice(0, 8);
  requireOnePlace(intent);
  if (steps === null || !fs.existsSync(intent.staging)) {
    // Without steps the folder is unchanged. Without the staging directory every step was done and recorded.
    const isLost = steps !== null && workspace.state().operations.at(-1)?.at !== intent.at;
    takeBackRestore(workspace, { intent, journal }, call);
    if (steps !== null && !isLost)
      return {
        operation,
        outcome: "completed",
        detail: `the restore of ${short} was complete`,
        kept: [],
        ...incompleteOf(left.leftOut),
      };
    // The staging directory may have been in the folder, and was removed with it.
    const detail = isLost
      ? `the folder was removed or unmounted before the restore of ${short} was recorded; the state before the restore is the save point ${intent.undo_id.slice(0, 8)}`
      : `the restore of ${short} had not begun to change the folder`;
    return { operation, outcome: "rolled_back", detail, kept: [] };
  }
  // The folder was removed after the kill. Displaced entries are still in the staging directory.
  if (!isFolderThere(workspace.root)) await makeMissing(workspace);
  const { root } = workspace;
  const runner = new StepRunner({ root, staging: intent.staging, resuming: true, hidesIgnored: () => true });
  const applied = runner.run(steps);
  const notSet = await finishRestore(workspace, call, { intent, steps, journal });
  return {
    operation,
    outcome: "completed",
    detail: `the restore of ${short} was interrupted and has been finished`,
    kept: applied.kept.map(({ path: where }) => recordPath(where)),
    ...incompleteOf(leftOutAfter(left.leftOut, applied, notSet)),
  };
}

/** Throws `refused` for a restore of an early build, which also staged in mounts and subvolumes inside the folder. */
function requireOnePlace({ apart, staging }: RestoreFile): void {
  if (apart === undefined || apart.length === 0) return;
  const places = apart.map((place) => printablePath(joinPath(rawPath(place), Buffer.from(path.basename(staging)))));
  throw new CairnError(
    "refused",
    `an early build of Cairn began a restore and staged its files in ${listedNames(places)} of the folder`,
    { hint: "finish the restore with the build that began it: any of its commands does that" },
  );
}

function incompleteOf(leftOut: readonly LeftOutEntry[]): Pick<Recovery, "incomplete"> {
  if (leftOut.length === 0) return {};
  const shown = leftOut.slice(0, SHOWN_LEFT_OUT).map(({ path: where, ...why }) => ({ ...recordPath(where), ...why }));
  return { incomplete: { count: leftOut.length, left_out: shown } };
}
