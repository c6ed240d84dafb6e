import fs from "node:fs";
import path from "node:path";
import { advice, CairnError, either, type Hint, line, option, reworded, toCairnError, word } from "../../errors.ts";
import { fsyncDirectory, temporaryName } from "../../fs/durable.ts";
import { moveToFree, parentOf } from "../../fs/linux/exchange-folders.ts";
import { makeFolder, makeOneFolder } from "../../fs/make-folder.ts";
import { filesystemUuid } from "../../fs/linux/mounts.ts";
import { printablePath, quotedPath, restoreLine, shellPath } from "../../fs/paths/safe-path.ts";
import { newWorkDirectory } from "../../fs/work-directory.ts";
import {
  isBeside,
  isFolderThere,
  isInMountOf,
  type PlacedWorkspace,
  readWorkspace,
  recordFolder,
} from "../place/control-directory.ts";
import { type FoundWorkspace } from "../place/find-workspace.ts";
import { requireMounted } from "../place/mounted.ts";
import {
  EXCHANGE_JOURNAL,
  FOLDER_JOURNAL,
  type FolderIntent,
  isIntentPending,
  readFolderIntent,
  removeIntentLink,
  RESTORE_JOURNAL,
  writeIntentLink,
} from "../points/journals.ts";
import type { Workspace } from "./workspace.ts";
import { failpoint } from "../../failpoint.ts";
import type { Recovery } from "../../formats/records/control.ts";
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
  if (!["not_found", "io"].includes(known.code) || errno === undefined || fs.existsSync(found.folder)) return error;
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
export function requirePlace(found: FoundWorkspace): void {
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
  if (isOnFileSystemOf(readWorkspace(control, workspace.name) ?? workspace, parent)) return null;
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

function isOnFileSystemOf(recorded: PlacedWorkspace, folder: Buffer): boolean {
  const uuid = filesystemUuid(folder);
  // Device numbers may change with a reboot, and each subvolume has its own.
  if (uuid !== null && recorded.filesystem_uuid !== undefined) return uuid === recorded.filesystem_uuid;
  return fs.statSync(folder, { bigint: true }).dev.toString() === recorded.device;
}

/** Identifies a folder, so that one that is made at its path later differs. */
export function identityOf(folder: Buffer): string | null {
  const facts = fs.lstatSync(folder, { bigint: true, throwIfNoEntry: false });
  return facts === undefined ? null : [facts.dev, facts.ino, facts.birthtimeNs].join(".");
}

/** Journals that a restore makes the folder: a recovery removes it again unless the restore is finished. */
export function announceFolder(journal: string, { aside, made }: FolderIntent): void {
  writeIntentLink(journal, FOLDER_JOURNAL, ["cairn.folder.1", aside, made ?? "-"]);
  fsyncDirectory(journal);
}

/** Records a folder that a restore made as the workspace's. For a restore that can no longer be rolled back. */
export function keepAnnounced({ found, root }: Workspace): void {
  const { journal } = found.paths;
  if (!isIntentPending(journal, FOLDER_JOURNAL)) return;
  if (isFolderThere(root)) recordFolder(found);
  removeIntentLink(journal, FOLDER_JOURNAL);
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
  if (isFolderThere(workspace.root)) return restore();
  try {
    await makeMissing(workspace);
    return await restore();
  } catch (error) {
    takeBackFolder(workspace);
    throw error;
  }
}

/** Makes the folder again, empty, with access only for its owner. Throws `refused` if its path does not permit that. */
export async function makeMissing(workspace: Workspace): Promise<void> {
  const { found, root } = workspace;
  const { journal } = found.paths;
  requirePlace(found);
  if (isIntentPending(journal, FOLDER_JOURNAL)) removeMade(workspace);
  const aside = temporaryName();
  const place = Buffer.concat([parentOf(root), Buffer.from(`/${aside}`)]);
  announceFolder(journal, { aside, made: null });
  failpoint("give-back.intent");
  await makeHoldable(workspace, place);
  failpoint("give-back.made");
  announceFolder(journal, { aside, made: identityOf(place) });
  failpoint("give-back.known");
  moveToFree(place, root);
  failpoint("give-back.moved");
}

/**
 * Removes a folder that a restore made, unless it has entries, another process made it anew, or its restore must be
 * finished. Null if there was no such folder.
 */
export function takeBackFolder(workspace: Workspace): Recovery | null {
  const { found, root } = workspace;
  const { journal } = found.paths;
  if (
    !isIntentPending(journal, FOLDER_JOURNAL) ||
    [RESTORE_JOURNAL, EXCHANGE_JOURNAL].some((name) => isIntentPending(journal, name))
  )
    return null;
  removeMade(workspace);
  failpoint("give-back.taken-back");
  removeIntentLink(journal, FOLDER_JOURNAL);
  const detail = `the restore of the missing folder ${printablePath(root)} had not begun`;
  return { operation: "restore", outcome: "rolled_back", detail, kept: [] };
}

function removeMade({ found, root }: Workspace): void {
  const intent = readFolderIntent(found.paths.journal);
  if (intent === null) return;
  removeEmpty(Buffer.concat([parentOf(root), Buffer.from(`/${intent.aside}`)]));
  if (intent.made !== null && identityOf(root) === intent.made) removeEmpty(root);
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
