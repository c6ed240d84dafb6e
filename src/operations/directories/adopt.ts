import { lstatSync } from "node:fs";
import { advice, CairnError, call } from "../../errors.ts";
import { printablePath, releaseLine } from "../../fs/paths/safe-path.ts";
import { removeAll } from "../../fs/remove-all.ts";
import { failpoint } from "../../failpoint.ts";
import type { AdoptForkOptions, RemovedFork, RemoveForkOptions, RestoreResult } from "../../contract/points.ts";
import { realPathOf, workspaceAt, workspaceNamed, workspaceRef } from "../../workspace/place/find-workspace.ts";
import { release } from "../../workspace/care/release.ts";
import type { FoundWorkspace } from "../../workspace/place/find-workspace.ts";
import { neverRead, Workspace, type WorkspaceCall } from "../../workspace/open/workspace.ts";
import { type Point } from "../../workspace/points/point-files.ts";
import { type OutsidePoint, siblingPoint, takenOver } from "../../workspace/open/siblings.ts";
import { receiveOutside } from "../../workspace/save/outside.ts";
import { takeOverPoint } from "../../workspace/save/receive.ts";
import { saveWorkspace } from "../../workspace/save/save.ts";
import { withSealed } from "../../workspace/save/seal.ts";
import { recoverWorkspace } from "../../workspace/open/recovery.ts";
import { goingBack } from "../restore.ts";

/** Ends a fork: the original takes the fork's state, or the fork is removed. */

/** Makes the folder equal to a fork's present, which is saved in the fork first. `fork`: the fork's name or folder. */
export async function adoptFork(workspace: Workspace, fork: string, options: AdoptForkOptions): Promise<RestoreResult> {
  const found = forkOf(workspace, fork);
  const point = await presentOf(workspace, found, options);
  if (!isBeside(workspace, found)) await receiveOutside(workspace, outsideOf(found, point), options);
  return goingBack(workspace, options, "restore", async () => ({
    target: await takenOverPoint(workspace, found, point),
    paths: null,
    keepPresent: false,
    kind: "adopt",
  }));
}

/**
 * Removes a fork with its folder and points. First saves its present as a point of this workspace, which a cleanup
 * treats as an undo point. After a kill before the release the fork is unchanged; after a later kill the folder stays,
 * as an ordinary one.
 */
export async function removeFork(workspace: Workspace, fork: string, options: RemoveForkOptions): Promise<RemovedFork> {
  const found = forkOf(workspace, fork);
  requireOwnFork(workspace, found);
  const point = await presentOf(workspace, found, options);
  const kept = await takenOverLocked(workspace, point, options);
  failpoint("fork.taken-over");
  await using other = new Workspace(found, workspace.parts, workspace.removals);
  const { inode } = identityOf(found);
  await release(other, { ...options, deletePoints: true });
  failpoint("fork.released");
  // The saved folder is removed, but not another folder at its path.
  if (identityOf(found).inode === inode) removeAll(found.folder);
  return { workspace: workspaceRef(found), save_point_id: kept.descriptor.save_point_id };
}

function identityOf({ folder }: FoundWorkspace): { inode: bigint } {
  return { inode: lstatSync(folder, { bigint: true, throwIfNoEntry: false })?.ino ?? 0n };
}

async function takenOverLocked(workspace: Workspace, point: Point, call: WorkspaceCall): Promise<Point> {
  using _lock = await workspace.lock("fork", call);
  await recoverWorkspace(workspace, call);
  return await takeOverPoint(workspace, siblingOf(workspace, point));
}

/** Returns the other workspace with a name or a folder. Throws `not_found`. */
function forkOf(workspace: Workspace, fork: string): FoundWorkspace {
  const { control, workspace: own } = workspace.found;
  const named = workspaceNamed(control, fork) ?? workspaceAt(realPathOf(fork));
  if (named === null || named.workspace.id === own.id)
    throw new CairnError("not_found", `there is no other workspace called ${JSON.stringify(fork.slice(0, 80))}`, {
      hint: advice`${call("workspaces", "listWorkspaces")} lists them`,
    });
  return named;
}

/** Throws `refused` for a workspace that is no fork of this one, or has a store of its own: its points would be lost. */
function requireOwnFork(workspace: Workspace, found: FoundWorkspace): void {
  if (isBeside(workspace, found) && found.workspace.origin?.workspace_id === workspace.found.workspace.id) return;
  throw new CairnError(
    "refused",
    `${printablePath(found.folder)} is not a fork of this workspace in the same control directory, so it is not removed`,
    { hint: advice`to end that workspace: ${releaseLine(found.folder)}` },
  );
}

function isBeside(workspace: Workspace, { control }: FoundWorkspace): boolean {
  return control.root === workspace.found.control.root;
}

function outsideOf({ folder }: FoundWorkspace, { descriptor }: Point): OutsidePoint {
  return { folder: folder.toString("utf8"), id: descriptor.save_point_id };
}

async function takenOverPoint(workspace: Workspace, found: FoundWorkspace, point: Point): Promise<Point> {
  if (isBeside(workspace, found)) return takeOverPoint(workspace, siblingOf(workspace, point));
  const own = takenOver(workspace.points, point.descriptor.save_point_id);
  if (own === null) throw new CairnError("not_found", "the point that was received of the fork is gone");
  return own;
}

/** Saves a fork's present. Returns the point, sealed. */
async function presentOf(workspace: Workspace, found: FoundWorkspace, call: WorkspaceCall): Promise<Point> {
  await using other = new Workspace(found, workspace.parts, workspace.removals);
  const { point } = await saveWorkspace(other, { ...call, skipUnchanged: true, message: "before the fork comes home" });
  const { save_point_id: id } = point.descriptor;
  return await withSealed(other, call, async () => {
    const sealed = other.byId(id) ?? point;
    if (!sealed.sealed) throw neverRead(sealed);
    return sealed;
  });
}

function siblingOf(workspace: Workspace, { descriptor }: Point): Point {
  const { control, workspace: own } = workspace.found;
  const found = siblingPoint(control, own.id, descriptor.save_point_id);
  if (found === null) throw new CairnError("not_found", `the point ${descriptor.save_point_id} is gone`);
  return found.point;
}
