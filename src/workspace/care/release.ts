import { existsSync, renameSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import type { CallOptions } from "../../contract/words.ts";
import type { ReleaseOptions, ReleaseResult } from "../../contract/care.ts";
import { advice, CairnError, call, line, option, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { durableRemove, fsyncDirectory, temporaryName } from "../../fs/durable.ts";
import { acquireLock } from "../../fs/lock.ts";
import { removeAll } from "../../fs/remove-all.ts";
import { printablePath, shellPath } from "../../fs/paths/safe-path.ts";
import { newWorkDirectory } from "../../fs/work-directory.ts";
import type { SavePointId } from "../../ids.ts";
import { freeRemoved, noteUnfreed, warnOfFreed } from "../keep/cleanup.ts";
import { isReleased, listWorkspaces, withRelease, writeWorkspace } from "../place/control-directory.ts";
import { controlPaths, MAIN_WORKSPACE, SELF_CONTAINED_CONTROL } from "../place/control-layout.ts";
import { type FoundWorkspace, realPathOf, workspaceRef } from "../place/find-workspace.ts";
import { recoverPartials } from "../new-folder/recover-folders.ts";
import { recoverWorkspace } from "../open/recovery.ts";
import {
  controlOf,
  entryOf,
  finishReleases,
  lockingOf,
  lockRegistry,
  noteRelease,
  noteReleased,
  ownNoteAt,
  readRegistration,
  removeNote,
  unregister,
} from "../place/registry.ts";
import { makingRoom, removeStatCaches } from "../open/temporaries.ts";
import { type Going, goingOf, requireShown } from "./going.ts";
import { type Workspace } from "../open/workspace.ts";

const FREE_WAIT_MS = 10_000;

/**
 * Stops keeping a folder; its files stay unchanged. The points stay, and a later `init` of the folder finds them.
 * With `deletePoints` they are deleted, and the last workspace's control directory too. Throws `busy`, `stale_plan`.
 */
export async function release(workspace: Workspace, options: ReleaseOptions): Promise<ReleaseResult> {
  const { found } = workspace;
  if (options.plan !== undefined && options.deletePoints !== true)
    throw new CairnError("usage", "a plan of a release lists the points to delete", {
      hint: advice`add ${option("deletePoints")}`,
    });
  const locking = lockingOf("release", options);
  using _registry = await lockRegistry(locking);
  finishReleases();
  using _workspace = await workspace.lock("release", options);
  // Interrupted operations are finished first: no later command would do that.
  if (existsSync(found.folder)) await recoverWorkspace(workspace, options);
  else await recoverPartials(workspace, options);
  // Recovery takes this lock too, after the workspace's lock.
  using _control = await acquireLock(found.control.lock, locking);
  const released = {
    workspace: workspaceRef(found),
    points_deleted: 0,
    points_kept: 0,
    bytes_freed: 0,
    complete: true,
  };
  if (options.deletePoints !== true) {
    retireWorkspace(found);
    return { ...released, points_kept: workspace.points.committed().length };
  }
  const going = await goingOf(workspace);
  if (options.plan !== undefined) requireShown(workspace, going, options.plan);
  return { ...released, ...(await deletePoints(workspace, options, going)) };
}

/** Marks a workspace as released, the commit point. Its points stay for a later `init` of the folder. */
export function retireWorkspace(found: FoundWorkspace): void {
  const { control, workspace, folder } = found;
  noteReleased(entryOf(found));
  failpoint("release.noted-released");
  removeNote(folder, workspace.id);
  writeWorkspace(control, withRelease(workspace));
  failpoint("release.marked");
  unregister(folder);
  failpoint("release.unregistered");
}

/**
 * Removes a workspace with its points; its folder stays. The caller holds the locks of the workspace and of the control
 * directory. The commit point is the rename of the workspace's directory. Throws `busy` while its points are read.
 */
export async function deletePoints(
  workspace: Workspace,
  options: Pick<ReleaseOptions, "onWarning">,
  going?: Going,
): Promise<Omit<ReleaseResult, "workspace" | "points_kept">> {
  const { found, points } = workspace;
  const { isWhole, bytes, foreign } = going ?? (await goingOf(workspace));
  const count = points.committed().length;
  if (isWhole) {
    workspace.requireLock();
    removeControlDirectory(found);
    return { points_deleted: count, bytes_freed: bytes, complete: true };
  }
  if (foreign)
    options.onWarning?.(`${found.control.store} also holds snapshots that Cairn did not make; these are not removed`);
  const ids = [...points.ids().keys()];
  const note = await noteBefore(found, ids);
  failpoint("release.unfreed-noted");
  workspace.requireLock();
  removeWorkspace(found);
  // Another workspace's cleanup deletes notes that it has handled. At that time these points still existed, so the note
  // is written again.
  if (note !== null && !existsSync(note)) await noteBefore(found, ids);
  return { points_deleted: count, ...(await free(workspace, ids, options)) };
}

/**
 * Removes the whole control directory; the rename is the commit point. After a kill before it nothing has changed.
 * After a kill later the registration is ignored, and the next holder of the registry's lock removes the rest.
 */
export function removeControlDirectory(found: FoundWorkspace): void {
  const { folder, control, workspace } = found;
  const parent = dirname(control.root);
  const doomed = join(parent, temporaryName());
  const note = noteRelease({ ...entryOf(found), control: doomed });
  failpoint("release.noted");
  removeNote(folder, workspace.id);
  renameDurably(control.root, doomed);
  failpoint("release.control-renamed");
  unregister(folder);
  failpoint("release.control-unregistered");
  removeAll(doomed);
  failpoint("release.control-removed");
  durableRemove(note);
}

function renameDurably(from: string, to: string): void {
  try {
    renameSync(from, to);
    fsyncDirectory(dirname(from));
  } catch (error) {
    throw toCairnError(error, `remove ${from}`);
  }
}

/**
 * Removes one of several workspaces with its records; its content in the store stays. The rename is the commit point: a
 * registration without its workspace is ignored.
 */
function removeWorkspace({ control, paths, workspace, folder }: FoundWorkspace): void {
  // The name has the process's id: after a kill the next command sees that the process ended, and removes the
  // directory.
  const doomed = newWorkDirectory(control.temporary);
  removeAll(paths.texts);
  removeNote(folder, workspace.id);
  renameDurably(paths.root, doomed);
  failpoint("release.workspace-renamed");
  unregister(folder);
  failpoint("release.workspace-unregistered");
  removeAll(doomed);
  removeAll(paths.texts);
  for (const cache of [paths.catalog, paths.engines, paths.ruleless, paths.wanted]) rmSync(cache, { force: true });
  removeStatCaches(control, workspace.id);
}

/**
 * Notes points before they are removed: after a kill no other record tells of their content in the store. A full disk
 * does not prevent the removal.
 */
async function noteBefore({ control }: FoundWorkspace, points: SavePointId[]): Promise<string | null> {
  try {
    return await makingRoom(control, () => noteUnfreed(control, { points, thorough: true }));
  } catch (error) {
    if (toCairnError(error).code !== "no_space") throw error;
    return null;
  }
}

/** Frees content that only removed points held. If that fails, a later cleanup frees it. */
async function free(
  workspace: Workspace,
  removed: readonly SavePointId[],
  options: Pick<ReleaseOptions, "onWarning">,
): Promise<Pick<ReleaseResult, "bytes_freed" | "complete">> {
  try {
    const freed = await freeRemoved(workspace, { removed, thorough: true, waitMs: FREE_WAIT_MS, signal: undefined });
    warnOfFreed(workspace.found.control, freed, options);
    return { bytes_freed: freed.bytesFreed, complete: freed.complete };
  } catch (error) {
    options.onWarning?.(`the points were removed, but their space could not be freed: ${toCairnError(error).message}`);
    return { bytes_freed: 0, complete: false };
  }
}

/**
 * Forgets a folder whose control directory or workspace is gone for good, and removes leftovers of a killed release.
 * False if the folder was not known. Throws `conflict` while its points exist: use `release` then.
 */
export async function forget(path: string, options: CallOptions): Promise<boolean> {
  const folder = realPathOf(path);
  using _registry = await lockRegistry(lockingOf("release", options));
  if (finishReleases().some((left) => left.folder.equals(folder))) return true;
  const registration = readRegistration(folder) ?? ownNoteAt(folder);
  if (registration === null) return forgetSelfContained(folder);
  const control = controlPaths(controlOf(registration));
  // A release that was killed after it removed one of several workspaces leaves the others there.
  const isThere = existsSync(control.file) && existsSync(control.workspaces);
  const kept = (isThere ? listWorkspaces(control) : []).find(({ name, workspace }) =>
    workspace === null ? name === registration.workspace_name : workspace.id === registration.workspace_id,
  );
  if (kept === undefined) {
    removeNote(folder, registration.workspace_id);
    return unregister(folder) || ownNoteAt(folder) === null;
  }
  const isInterrupted = kept.workspace !== null && isReleased(kept.workspace);
  throw new CairnError("conflict", `the points of ${printablePath(folder)} are still there, in ${control.root}`, {
    hint: isInterrupted
      ? advice`run ${call(`init ${shellPath(folder)}`, "openOrInit", printablePath(folder))}, then release the folder again: an earlier release was interrupted`
      : advice`use ${line("release")}`,
  });
}

/** Forgets a self-contained workspace, named by its folder or its root, if its control directory is gone. */
function forgetSelfContained(folder: Buffer): boolean {
  for (const main of [folder, Buffer.concat([folder, Buffer.from(`/${MAIN_WORKSPACE}`)])]) {
    const beside = join(dirname(main.toString("utf8")), SELF_CONTAINED_CONTROL);
    if (!existsSync(controlPaths(beside).file) && unregister(main)) return true;
  }
  return false;
}
