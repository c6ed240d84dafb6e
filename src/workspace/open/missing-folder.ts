import fs from "node:fs";
import path from "node:path";
import { advice, CairnError, either, type Hint, line, option, reworded, toCairnError, word } from "../../errors.ts";
import { temporaryName } from "../../fs/durable.ts";
import { moveToFree, parentOf } from "../../fs/linux/exchange-folders.ts";
import { makeFolder, makeOneFolder } from "../../fs/make-folder.ts";
import { joinRaw, printablePath, quotedPath, restoreLine, shellPath } from "../../fs/paths/safe-path.ts";
import { isGone } from "../../fs/silent-mounts.ts";
import { newWorkDirectory } from "../../fs/work-directory.ts";
import {
  isBeside,
  isFolderThere,
  isInMountOf,
  isOnFileSystemOf,
  readWorkspace,
  recordFolder,
} from "../place/control-directory.ts";
import { type FoundWorkspace, isOtherFolder } from "../place/find-workspace.ts";
import { requireMounted } from "../place/mounted.ts";
import type { MissingFolderWork } from "../../formats/records/unfinished.ts";
import { journaled, restoredInPart } from "./unfinished-work.ts";
import type { Workspace } from "./workspace.ts";
import { failpoint } from "../../failpoint.ts";
import { makeSubvolume } from "../../fs/linux/btrfs.ts";
import { makePrivate } from "../../fs/owner-writes.ts";

/** Errors about a workspace's missing folder, and the journal of a restore that makes the folder again. */

/** Throws `not_found`, with a hint that names ways to bring the folder back. */
export function requireFolder({ found }: Workspace): void {
  if (!isFolderThere(found.folder)) throw folderIsMissing(found);
}

function folderIsMissing(found: FoundWorkspace): CairnError {
  return new CairnError("not_found", `the folder ${printablePath(found.folder)} is not there`, {
    hint: waysBack(found),
  });
}

/** Replaces the error of a system call by a clearer one if the workspace's folder is gone, for example unmounted. */
export function unlessFolderIsGone(found: FoundWorkspace, error: unknown): unknown {
  const known = toCairnError(error);
  const errno = known.details?.["errno"] ?? (known.cause as NodeJS.ErrnoException | undefined)?.code;
  if (!["not_found", "io"].includes(known.code) || errno === undefined || !isGone(found.folder)) return error;
  return reworded(folderIsMissing(found), { cause: error });
}

/** Names ways to bring a missing folder back. */
export function waysBack(found: FoundWorkspace): Hint {
  const quoted = shellPath(found.folder);
  const problem = whyNotThere(found);
  const restore =
    problem === null
      ? advice`${either(`\`cairn -C ${quoted} restore latest\``, restoreLine(found.folder))} restores it`
      : advice`${problem.reason}: ${problem.hint}`;
  const moved = line(`relocate ${quoted} NEW`, "relocate", printablePath(found.folder), word("NEW"));
  return advice`${restore}; if you moved it: ${moved}`;
}

/** Throws `refused` if the folder must not be made again at its path. */
function requirePlace(found: FoundWorkspace): void {
  const problem = whyNotThere(found);
  if (problem === null) return;
  const message = `${printablePath(found.folder)} is missing, and Cairn does not make it again: ${problem.reason}`;
  throw new CairnError("refused", message, { hint: problem.hint });
}

/** Returns the reason why a missing folder must not be made at its path; null if it may. */
function whyNotThere(found: FoundWorkspace): { reason: string; hint: Hint } | null {
  const { folder, control, workspace } = found;
  const parent = parentOf(folder);
  const above = quotedPath(parent);
  if (isAnythingThere(folder))
    return {
      reason: "a file that is not a folder lies there",
      hint: `move ${quotedPath(folder)} away first; Cairn did not change it`,
    };
  if (!isFolderThere(parent))
    return {
      reason: `its parent folder is missing too`,
      hint: `mount the disk that the folder was on, or: mkdir -p ${above}`,
    };
  // The control directory lies beside the folder, so its disk is mounted.
  if (isBeside(control.root, folder) || isInMountOf(control, parent)) return null;
  const recorded = readWorkspace(control, workspace.name) ?? workspace;
  // Device numbers may change with a reboot, and each subvolume has its own.
  const isSameDevice = (): boolean => fs.statSync(parent, { bigint: true }).dev.toString() === recorded.device;
  if (isOnFileSystemOf(recorded, parent) ?? isSameDevice()) return null;
  return {
    reason: `it was on another file system than the one that is mounted at ${above} now`,
    hint: advice`mount its disk; or restore with ${option("to")} into another folder; or, to have the folder here from now on: mkdir ${shellPath(folder)}, then restore with ${option({ allow: ["unmounted"] })}`,
  };
}

/** True also for a dangling link. */
function isAnythingThere(place: Buffer): boolean {
  try {
    return fs.lstatSync(place, { throwIfNoEntry: false }) !== undefined;
  } catch {
    // A parent is no directory.
    return false;
  }
}

/** Identifies an entry, so that one that is made at its path later differs. Null if there is none. */
export function identityOf(folder: Buffer): string | null {
  const facts = fs.lstatSync(folder, { bigint: true, throwIfNoEntry: false });
  return facts === undefined ? null : [facts.dev, facts.ino, facts.birthtimeNs].join(".");
}

/** Records a folder that a restore made as the workspace's. For a restore that can no longer be rolled back. */
export function keepAnnounced(workspace: Workspace): void {
  const record = workspace.unfinished("missing-folder");
  if (!record.isBegun) return;
  if (isFolderThere(workspace.root)) recordFolder(workspace.found);
  record.end();
}

/** Runs `work` on the folder to find a restore's changes. If the folder is missing, an empty one takes its place. */
export async function withPresent<T>({ found, root }: Workspace, work: (present: Buffer) => Promise<T>): Promise<T> {
  if (isFolderThere(root)) return work(root);
  requirePlace(found);
  const empty = newWorkDirectory(found.control.temporary);
  makeFolder(empty);
  try {
    return await work(Buffer.from(path.resolve(empty)));
  } finally {
    fs.rmdirSync(empty);
  }
}

/**
 * Restores a missing folder: journals it, makes it aside, moves it to its path if that is free, then runs `restore`,
 * which has the commit point. A kill before that point removes the folder again; after it the folder is recorded, then
 * both journals go. The caller holds the workspace's lock.
 */
export async function givingBack<T>(
  workspace: Workspace,
  call: Parameters<typeof requireMounted>[1],
  restore: () => Promise<T>,
): Promise<T> {
  requireMounted(workspace.found, call);
  if (isFolderThere(workspace.root)) {
    const restored = await restore();
    // The user goes on with a folder that another program made at the path.
    if (isOtherFolder(workspace.found)) recordFolder(workspace.found);
    return restored;
  }
  try {
    await makeMissing(workspace);
    return await restore();
  } catch (error) {
    const record = workspace.unfinished("missing-folder").read();
    if (record !== null) takeBackFolder(workspace, record);
    throw error;
  }
}

/** Makes the folder again, empty, with access only for its owner. Throws `refused` if its path does not permit that. */
export async function makeMissing(workspace: Workspace): Promise<void> {
  const { found, root } = workspace;
  const record = workspace.unfinished("missing-folder");
  requirePlace(found);
  const left = record.read();
  if (left !== null) removeMade(workspace, left);
  const aside = temporaryName();
  const place = joinRaw(parentOf(root), aside);
  record.begin({ aside, made: null });
  failpoint("give-back.intent");
  await makeHoldable(workspace, place);
  failpoint("give-back.made");
  record.begin({ aside, made: identityOf(place) });
  failpoint("give-back.known");
  moveToFree(place, root);
  failpoint("give-back.moved");
}

export const MISSING_FOLDER = journaled({
  kind: "missing-folder",
  operation: "restore",
  where: "`journal/missing-folder.json`",
  steps: [
    "the record names a new folder beside the path of the missing one",
    "the folder is made and gets its path",
    "● a restore fills it: its commit point is this one's, too",
    "the folder is recorded as the workspace's; the record is removed",
  ],
  before: "removes the folder if it is empty",
  after: "finishes the restore, then records the folder",
  changesFolder: true,
  unreadable: restoredInPart,
  // A restore or exchange that was committed has ended this work already.
  isCommitted: () => false,
  async takeBack(workspace, work) {
    if (!takeBackFolder(workspace, work)) return null;
    return { detail: `the restore of the missing folder ${printablePath(workspace.root)} had not begun` };
  },
});

/**
 * Removes a folder that a restore made, unless the folder has entries or another process made it anew. Returns false if
 * its restore must be finished.
 */
function takeBackFolder(workspace: Workspace, work: MissingFolderWork): boolean {
  if (workspace.unfinished("restore").isBegun || workspace.unfinished("exchange").isBegun) return false;
  removeMade(workspace, work);
  failpoint("give-back.taken-back");
  workspace.unfinished("missing-folder").end();
  return true;
}

function removeMade({ root }: Workspace, { aside, made }: MissingFolderWork): void {
  removeEmpty(joinRaw(parentOf(root), aside));
  if (made !== null && identityOf(root) === made) removeEmpty(root);
}

/** Removes an empty folder. Keeps a folder that is in use, not empty or read-only. */
function removeEmpty(folder: Buffer): void {
  try {
    fs.rmdirSync(folder);
  } catch (error) {
    if (typeof (error as NodeJS.ErrnoException).code !== "string") throw error;
  }
}

/** Makes an absent folder for its owner alone: a subvolume if the engine needs one and it can be made, else a plain one. */
export async function makeHoldable({ engine }: Workspace, folder: Buffer): Promise<void> {
  if (engine.holder?.atomic === true) {
    try {
      await makeSubvolume(folder);
      makePrivate(folder);
      return;
    } catch {
      // A plain folder works, too: its points are kept in the store.
    }
  }
  makeOneFolder(folder, 0o700);
}
