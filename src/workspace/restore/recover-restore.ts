import { append } from "../../append.ts";
import { setDirectory } from "../../archive/write/root-metadata.ts";
import { STAGING_PREFIX } from "../../archive/scan/task.ts";
import { CairnError } from "../../errors.ts";
import type { Recovery } from "../../formats/records/control.ts";
import { rawPath, recordPath } from "../../formats/records/record.ts";
import type { DirectoryFacts, PlaceApart, RestoreFile } from "../../formats/records/restore.ts";
import { flushFileSystem } from "../../fs/linux/flush.ts";
import { letOwnerWrite } from "../../fs/owner-writes.ts";
import { removeAll } from "../../fs/remove-all.ts";
import { isAtOrBelow, joinRaw } from "../../fs/safe-path.ts";
import { isFolderThere, makeMissing } from "./missing-folder.ts";
import { HeldDirectories, throughDescriptor } from "./held-directories.ts";
import { keepWrittenTo } from "./kept-displaced.ts";
import { type AppliedSteps, leftOutAfter, StepRunner } from "./apply.ts";
import { type LeftOutEntry, SHOWN_LEFT_OUT } from "../points/left-out.ts";
import { finishRestore, takeBackRestore } from "./restore.ts";
import { RestoreJournal } from "../journals.ts";
import type { Step } from "./steps.ts";
import type { Workspace, WorkspaceCall } from "../workspace.ts";
import fs from "node:fs";
import path from "node:path";

/** Finishes a restore that was killed after its commit, or takes it back before that. Null where there was none. */
export async function recoverRestore(workspace: Workspace, call: WorkspaceCall): Promise<Recovery | null> {
  const journal = new RestoreJournal(workspace.found.paths.journal);
  const left = journal.read();
  if (left === null) return null;
  const intent = { ...left.intent, staging: stagingNow(workspace, left.intent.staging) };
  const { kind: operation } = intent;
  const { steps } = left;
  const short = intent.target.slice(0, 8);
  if (steps === null || !fs.existsSync(intent.staging)) {
    // Without steps nothing was touched; without the staging directory everything was done and recorded.
    const isLost = steps !== null && workspace.state().last_restore?.at !== intent.at;
    await eachApart(workspace.root, intent, steps ?? [], (staging) => staging !== null && removeAll(staging));
    takeBackRestore(workspace, { intent, journal }, call);
    if (steps !== null && !isLost)
      return {
        operation,
        outcome: "completed",
        detail: `the restore of ${short} was complete`,
        kept: [],
        ...incompleteOf(left.leftOut),
      };
    // The staging directory may have been in the folder, and have gone with it.
    const detail = isLost
      ? `the folder was removed, or what was mounted there is not, before the restore of ${short} was recorded; what was there before is saved as ${intent.undo_id.slice(0, 8)}`
      : `the restore of ${short} had not begun to change the folder`;
    return { operation, outcome: "rolled_back", detail, kept: [] };
  }
  // It was removed since, and what was displaced from it is still in the staging directory.
  if (!isFolderThere(workspace.root)) await makeMissing(workspace);
  const apart = await finishApart(workspace, call, intent, steps);
  const applied = new StepRunner({ ...recovering(workspace), staging: intent.staging }).run(apart.rest);
  append(applied.kept, apart.kept);
  const { notSet } = await finishRestore(workspace, call, { intent, steps: apart.rest, journal });
  return {
    operation,
    outcome: "completed",
    detail: `the restore of ${short} was interrupted and has been finished`,
    kept: applied.kept.map(({ path: where }) => recordPath(where)),
    ...incompleteOf(leftOutAfter(left.leftOut, applied, notSet)),
  };
}

function recovering({ root }: Workspace): { root: Buffer; resuming: boolean; hidesIgnored: () => boolean } {
  return { root, resuming: true, hidesIgnored: () => true };
}

/**
 * Finds the staging directory, which moves with the folder or the control directory that it is in. Another may lie
 * where it was recorded.
 */
function stagingNow(workspace: Workspace, recorded: string): string {
  const name = path.basename(recorded);
  if (!name.startsWith(STAGING_PREFIX))
    throw new CairnError("damaged", `${recorded} is no staging directory of a restore`, { hint: "run `cairn doctor`" });
  const inControl = path.join(workspace.found.control.temporary, name);
  const inFolder = path.join(workspace.root.toString("utf8"), name);
  return fs.existsSync(inFolder) ? inFolder : inControl;
}

function incompleteOf(leftOut: readonly LeftOutEntry[]): Pick<Recovery, "incomplete"> {
  if (leftOut.length === 0) return {};
  const shown = leftOut.slice(0, SHOWN_LEFT_OUT).map(({ path: where, ...why }) => ({ ...recordPath(where), ...why }));
  return { incomplete: { count: leftOut.length, left_out: shown } };
}

/**
 * Does the steps in other mounts and subvolumes inside the folder, where earlier versions staged in each (`apart`): each
 * place is done and its staging folder removed before the rest. Returns the other steps, and what stays.
 */
async function finishApart(
  workspace: Workspace,
  call: WorkspaceCall,
  intent: RestoreFile,
  steps: readonly Step[],
): Promise<{ rest: readonly Step[]; kept: AppliedSteps["kept"] }> {
  let rest = steps;
  const kept: AppliedSteps["kept"] = [];
  await eachApart(workspace.root, intent, steps, async (staging, where) => {
    const isOwn = (step: Step): boolean => step.path.length > where.length && isAtOrBelow(step.path, where);
    const own = rest.filter(isOwn);
    rest = rest.filter((step) => !isOwn(step));
    if (staging === null) return void append(kept, notDone(workspace.root, own));
    append(kept, new StepRunner({ ...recovering(workspace), staging }).run(own).kept);
    await keepWrittenTo(workspace, call, { undoId: intent.undo_id, staging, steps: own });
    await flushFileSystem(staging);
    removeAll(staging);
  });
  return { rest, kept };
}

/** Opens each place, deepest first, following no link; `work` gets its staging folder, null where none is there. */
async function eachApart(
  root: Buffer,
  { apart = [], staging }: RestoreFile,
  steps: readonly Step[],
  work: (staging: string | null, where: Buffer) => unknown,
): Promise<void> {
  if (apart.length === 0 || !isFolderThere(root)) return;
  const places = apart.map((place) => ({ place, where: Buffer.from(rawPath(place)) }));
  for (const { place, where } of places.toSorted((a, b) => b.where.length - a.where.length)) {
    const held = new HeldDirectories(root);
    try {
      const fd = openOrNull(held, where);
      const own =
        fd === null
          ? null
          : path.join(throughDescriptor(fd, joinRaw(root, where)).toString("utf8"), path.basename(staging));
      const isThere = fd !== null && own !== null && fs.existsSync(own);
      if (isThere) letOwnerWrite(fd);
      await work(isThere ? own : null, where);
      if (isThere) setDirectory(fd, factsAfter(place, steps));
    } finally {
      held.close();
    }
  }
}

function openOrNull(held: HeldDirectories, place: Uint8Array): number | null {
  try {
    return held.open(place);
  } catch {
    // It went, or is no directory any more.
    return null;
  }
}

/** A place's directory when the steps are done: they say so where they change it. */
function factsAfter(place: PlaceApart, steps: readonly Step[]): DirectoryFacts {
  const where = Buffer.from(rawPath(place));
  const step = steps.find((each) => each.op === "dirmeta" && where.equals(each.path));
  if (step?.op !== "dirmeta") return place;
  const { mode, uid, gid, mtimeSec, mtimeNs } = step.metadata;
  return { mode, uid, gid, mtime_sec: mtimeSec, mtime_ns: mtimeNs };
}

/** Steps that were not done before the staging folder went, or something else was mounted there: only what is as it should be counts. */
function notDone(root: Buffer, steps: readonly Step[]): AppliedSteps["kept"] {
  const detail = "what was mounted there when the restore began is not: mount it and restore again";
  return steps.flatMap((step) => {
    if (step.op !== "put" && step.op !== "remove") return [];
    const now = fs.lstatSync(joinRaw(root, step.path), { bigint: true, throwIfNoEntry: false });
    const isDone = step.op === "put" ? now?.ino.toString() === step.inode : now === undefined;
    return isDone ? [] : [{ path: step.path, reason: "mounted" as const, detail }];
  });
}
