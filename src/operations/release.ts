import { existsSync } from "node:fs";
import { join } from "node:path";
import { toCairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { acquireLock } from "../fs/lock.ts";
import { namesIfThere } from "../fs/names-in.ts";
import { printablePath } from "../fs/safe-path.ts";
import type { SavePointId } from "../ids.ts";
import { warnOfLost } from "../workspace/cleanup.ts";
import { recoverPartials } from "../workspace/fork-recovery.ts";
import { keptOriginal } from "../workspace/kept-original.ts";
import { recoverWorkspace } from "../workspace/recovery.ts";
import { finishReleases, lockRegistry } from "../workspace/registry.ts";
import {
  isLastWorkspace,
  removeControlDirectory,
  removeWorkspace,
  requireIdle,
  retireWorkspace,
} from "../workspace/release.ts";
import { makingRoom } from "../workspace/temporaries.ts";
import { freeRemoved, noteUnfreed, whyUnfreed } from "../workspace/unfreed.ts";
import { lockingOf, type Workspace } from "../workspace/workspace.ts";
import type { ReleaseOptions, ReleaseResult } from "./contract.ts";
import { workspaceRef } from "./workspace-ref.ts";

const FREE_WAIT_MS = 10_000;

/**
 * Stops keeping a folder, whose files stay as they are. The points stay too, for whoever adopts the folder again;
 * with `deletePoints` they go, and with the last workspace the control directory. Throws `busy`.
 */
export async function release(workspace: Workspace, options: ReleaseOptions): Promise<ReleaseResult> {
  const { found } = workspace;
  const locking = lockingOf("release", options);
  using _registry = await lockRegistry(locking);
  finishReleases();
  using _workspace = await workspace.lock("release", options);
  // What was interrupted is finished first: afterwards nobody would.
  if (existsSync(found.folder)) await recoverWorkspace(workspace, options);
  else await recoverPartials(workspace, options);
  // Recovery takes it too, and after the workspace's.
  using _control = await acquireLock(found.control.lock, locking);
  warnOfOriginal(workspace, options);
  const released = { workspace: workspaceRef(found), points_deleted: 0, bytes_freed: 0, complete: true };
  if (options.deletePoints !== true) {
    retireWorkspace(found);
    return released;
  }
  requireIdle(found);
  return { ...released, ...(await deletePoints(workspace, options)) };
}

/** Nothing is left that would remove it. */
function warnOfOriginal({ found }: Workspace, { onWarning }: ReleaseOptions): void {
  try {
    const original = keptOriginal(found);
    if (original !== null)
      onWarning?.(
        `the folder as it was before its conversion stays in ${printablePath(original.place)}; remove it when you do not need it`,
      );
  } catch (error) {
    onWarning?.(toCairnError(error).message);
  }
}

async function deletePoints(workspace: Workspace, options: ReleaseOptions): Promise<Omit<ReleaseResult, "workspace">> {
  const { found, engine, points } = workspace;
  const count = points.committed().length;
  const { bytes, foreign } = isClosedForGood(workspace)
    ? { bytes: 0, foreign: false }
    : await engine.storeFacts({ foreign: true });
  if (isLastWorkspace(found) && !foreign) {
    workspace.requireLock();
    removeControlDirectory(found);
    return { points_deleted: count, bytes_freed: bytes, complete: true };
  }
  if (foreign) options.onWarning?.(`${found.control.store} also holds snapshots that Cairn did not make; they stay`);
  const ids = [...points.ids().keys()];
  const note = await noteBefore(workspace, ids);
  failpoint("release.unfreed-noted");
  workspace.requireLock();
  removeWorkspace(found);
  // Another workspace's cleanup takes notes away that it has seen to: these points were still there then.
  if (note !== null && !existsSync(note)) await noteBefore(workspace, ids);
  return { points_deleted: count, ...(await free(workspace, ids, options)) };
}

/**
 * Without any of its keys nothing in the store can be read by anybody. One that somebody has added may open it, and what is
 * there be somebody's.
 */
function isClosedForGood({ found: { control } }: Workspace): boolean {
  if ([control.storeKey, control.storePassword].some((file) => existsSync(file))) return false;
  return namesIfThere(join(control.store, "keys")).length <= 1;
}

/** After a kill nothing else tells what of them is in the store. A full disk keeps nobody from making room. */
async function noteBefore({ found: { control } }: Workspace, points: SavePointId[]): Promise<string | null> {
  try {
    return await makingRoom(control, () => noteUnfreed(control, { points, thorough: true }));
  } catch (error) {
    if (toCairnError(error).code !== "no_space") throw error;
    return null;
  }
}

/** What only these points held. They are gone whatever becomes of it: a cleanup frees what is left. */
async function free(
  workspace: Workspace,
  removed: readonly SavePointId[],
  options: ReleaseOptions,
): Promise<Pick<ReleaseResult, "bytes_freed" | "complete">> {
  const { control } = workspace.found;
  try {
    const freed = await freeRemoved(workspace, { removed, thorough: true, waitMs: FREE_WAIT_MS, signal: undefined });
    const why = whyUnfreed(control, freed);
    if (why !== null) options.onWarning?.(why);
    warnOfLost(freed.lost, options);
    return { bytes_freed: freed.bytesFreed, complete: freed.complete };
  } catch (error) {
    options.onWarning?.(`the points are gone, their space could not be given back: ${toCairnError(error).message}`);
    return { bytes_freed: 0, complete: false };
  }
}
