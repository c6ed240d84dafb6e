import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { STAGING_PREFIX } from "../../archive/scan/task.ts";
import type { NotSet } from "../../archive/write/node-writer.ts";
import { advice, CairnError, call } from "../../errors.ts";
import { hex } from "../../formats/bytes.ts";
import type { DescriptorContent } from "../../formats/records/descriptor.ts";
import type { RestoreFile } from "../../formats/records/restore.ts";
import { fsyncDirectory } from "../../fs/durable.ts";
import { type MadeFolder, otherFolder, removeAll } from "../../fs/remove-all.ts";
import { makeFolder, makeOneFolder } from "../../fs/make-folder.ts";
import { filesystemKind, onSameMount } from "../../fs/linux/mounts.ts";
import { flushFileSystem } from "../../fs/linux/flush.ts";
import { inDirectory } from "../../fs/linux/syscalls.ts";
import { letOwnerWrite, undoOwnerWrites } from "../../fs/owner-writes.ts";
import { isSameRoot, rootOfPoint, rootToSet, setRoot } from "../points/root-changes.ts";
import type { PlannedRestore } from "./planned.ts";
import type { RestoreInput } from "./prepare.ts";
import { recordPath } from "../../formats/records/record.ts";
import type { Workspace, WorkspaceCall } from "../open/workspace.ts";
import { isFolderThere } from "../place/control-directory.ts";

/** The directory in which a restore stages new entries and to which it moves displaced ones. */

/** Chooses a place: the control directory if it is on the workspace's mount, else the workspace's root. */
function stagingDirectory(workspace: Workspace): string {
  const name = `${STAGING_PREFIX}${randomBytes(8).toString("hex")}`;
  const { temporary } = workspace.found.control;
  makeFolder(temporary);
  const root = workspace.root.toString("utf8");
  const same =
    Buffer.from(root).equals(workspace.root) &&
    fs.statSync(workspace.root).dev === fs.statSync(temporary).dev &&
    onSameMount(root, temporary);
  return same ? path.join(temporary, name) : path.join(root, name);
}

/**
 * Finds the staging directory, which moves with the folder or the control directory that it is in. Another directory
 * may have its recorded path.
 */
export function stagingNow(workspace: Workspace, recorded: string): string {
  const name = path.basename(recorded);
  if (!name.startsWith(STAGING_PREFIX))
    throw new CairnError("damaged", `${recorded} is not a staging directory of a restore`, {
      hint: advice`run ${call("doctor")}`,
    });
  const inControl = path.join(workspace.found.control.temporary, name);
  const inFolder = path.join(workspace.root.toString("utf8"), name);
  return fs.existsSync(inFolder) ? inFolder : inControl;
}

function isInside(workspace: Workspace, staging: string): boolean {
  return path.dirname(staging) === workspace.root.toString("utf8");
}

export function makeStaging(workspace: Workspace, intent: RestoreFile): void {
  const { staging } = intent;
  if (isInside(workspace, staging)) inDirectory(workspace.root, letOwnerWrite);
  makeOneFolder(Buffer.from(staging), 0o700);
}

interface RemoveStaging extends Pick<WorkspaceCall, "onWarning"> {
  root: RestoreFile["root"];
  keepsTimes: boolean;
  made: MadeFolder | undefined;
}

/**
 * Removes the staging directory. A directory in the folder itself changed the folder's time and maybe its mode: both
 * are set again, with the other metadata of the root. Returns metadata that could not be set; null if only the mode was set again.
 */
export function removeStaging(
  workspace: Workspace,
  { staging }: RestoreFile,
  { root, keepsTimes, made, onWarning }: RemoveStaging,
): NotSet[] | null {
  const lay = isInside(workspace, staging) && fs.existsSync(staging);
  if (lay) inDirectory(workspace.root, letOwnerWrite);
  if (made === undefined) removeAll(staging);
  else if (!made.remove()) onWarning?.(`${otherFolder(staging)}: it is not removed`);
  // The folder may have been removed since.
  if (root === null || !isFolderThere(workspace.root)) return null;
  if (lay && keepsTimes) return setRoot(workspace.root, root);
  inDirectory(workspace.root, (fd) => undoOwnerWrites(fd, root.mode));
  return null;
}

/** Returns the metadata of the folder itself from the undo point; null if that point is gone. */
export function rootBefore(workspace: Workspace, { undo_id: undoId }: RestoreFile): RestoreFile["root"] {
  const undo = workspace.points.byId(undoId);
  if (undo === null) return null;
  const { mode, uid, gid, mtime_sec, mtime_ns } = (undo.descriptor.content as DescriptorContent).root;
  return { mode, uid, gid, mtime_sec, mtime_ns };
}

/** Makes a place durable before its record, if files have new content or no shared journal orders both. */
export async function flushUnlessOrdered(
  workspace: Workspace,
  place: Parameters<typeof flushFileSystem>[0],
  { hasContent }: { hasContent: boolean },
): Promise<void> {
  if (hasContent || !isOrdered(workspace, workspace.root)) await flushFileSystem(place);
}

/** Makes the removal of the staging directory durable before the journal that names it ends. */
export function syncRemoval(workspace: Workspace, { staging }: RestoreFile): void {
  const parent = path.dirname(staging);
  // The staging directory may have been in the folder, and was removed with it.
  if (fs.existsSync(parent) && !isOrdered(workspace, parent)) fsyncDirectory(parent);
}

function isOrdered(workspace: Workspace, place: string | Buffer): boolean {
  const { journal } = workspace.found.paths;
  return fs.statSync(place).dev === fs.statSync(journal).dev && ONE_JOURNAL.has(filesystemKind(journal).name);
}

/** File systems with one journal: a synced change of the control directory is never durable before earlier renames. */
const ONE_JOURNAL: ReadonlySet<string> = new Set(["ext4", "xfs", "tmpfs"]);

/** Returns the journal's intent of a restore, and whether the restore changes the folder itself. */
export function intentOf(
  workspace: Workspace,
  { target, kind, change }: RestoreInput,
  { undo, own, merged }: Pick<PlannedRestore, "undo" | "own" | "merged">,
): { intent: RestoreFile; changesRoot: boolean } {
  const isMade = workspace.unfinished("missing-folder").isBegun;
  const paths = change.recordedPaths(own);
  // The folder's own mode or owner was set since the operation.
  const left = change.leftRoot(undo);
  const isEdited = left !== null && !isSameRoot(rootOfPoint(left), rootOfPoint(undo));
  const isOwnRoot = paths === null && !isEdited;
  const intent: RestoreFile = {
    target: target.descriptor.save_point_id,
    undo_id: undo.descriptor.save_point_id,
    kind,
    paths,
    ...(own === null
      ? {}
      : { changed: own.map(({ path: each, left: id }) => ({ ...recordPath(each), ...(id && { left: id }) })) }),
    ...change.recorded(),
    ...(merged.length > 0
      ? { merged: merged.map(({ path: each, sha256 }) => ({ ...recordPath(each), sha256: hex(sha256) })) }
      : {}),
    staging: stagingDirectory(workspace),
    // A folder that was made for the restore has no metadata of its own.
    root: isOwnRoot || isMade ? rootToSet(workspace.root, target) : null,
    at: new Date().toISOString(),
  };
  return { intent, changesRoot: isOwnRoot && !isMade && !isSameRoot(rootOfPoint(target), rootOfPoint(undo)) };
}
