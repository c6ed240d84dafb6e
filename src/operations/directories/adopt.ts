import { lstatSync } from "node:fs";
import { advice, CairnError, call } from "../../errors.ts";
import { printablePath, restoreLine } from "../../fs/paths/safe-path.ts";
import { removeAll } from "../../fs/remove-all.ts";
import { failpoint } from "../../failpoint.ts";
import type { AdoptForkOptions, RemovedFork, RemoveForkOptions, RestoreResult } from "../../contract/points.ts";
import { realPathOf, workspaceAt, workspaceNamed, workspaceRef } from "../../workspace/place/find-workspace.ts";
import { release } from "../../workspace/care/release.ts";
import type { FoundWorkspace } from "../../workspace/place/find-workspace.ts";
import { neverRead, Workspace, type WorkspaceCall } from "../../workspace/open/workspace.ts";
import { type Point } from "../../workspace/points/point-files.ts";
import { siblingPoint } from "../../workspace/open/siblings.ts";
import { takeOverPoint } from "../../workspace/save/receive.ts";
import { saveWorkspace } from "../../workspace/save/save.ts";
import { withSealed } from "../../workspace/save/seal.ts";
import { recoverWorkspace } from "../../workspace/open/recovery.ts";
import { goingBack } from "../restore.ts";

/** Ends of a fork: the original takes the fork's state over, or the fork is removed. */

/** Makes the folder equal to a fork's present, which is saved in the fork first. `fork`: the fork's name or folder. */
export async function adoptFork(workspace: Workspace, fork: string, options: AdoptForkOptions): Promise<RestoreResult> {
  const found = forkOf(workspace, fork);
  const point = await presentOf(workspace, found, options);
  return goingBack(workspace, options, "restore", async () => ({
    target: await takeOverPoint(workspace, siblingOf(workspace, point)),
    paths: null,
    keepPresent: false,
    kind: "adopt",
  }));
}

/**
 * Removes a fork with its folder and its points. Its present is saved first, as a point of this workspace, which a cleanup
 * treats as an undo point. A kill before the release leaves the fork as it is; after it the folder stays, as an ordinary one.
 */
export async function removeFork(workspace: Workspace, fork: string, options: RemoveForkOptions): Promise<RemovedFork> {
  const found = forkOf(workspace, fork);
  const point = await presentOf(workspace, found, options);
  const kept = await takenOver(workspace, point, options);
  failpoint("fork.taken-over");
  await using other = new Workspace(found, workspace.parts, workspace.removals);
  const { inode } = identityOf(found);
  await release(other, { ...options, deletePoints: true });
  failpoint("fork.released");
  // The folder that was saved, and no other that came to lie at its path.
  if (identityOf(found).inode === inode) removeAll(found.folder);
  return { workspace: workspaceRef(found), save_point_id: kept.descriptor.save_point_id };
}

function identityOf({ folder }: FoundWorkspace): { inode: bigint } {
  return { inode: lstatSync(folder, { bigint: true, throwIfNoEntry: false })?.ino ?? 0n };
}

async function takenOver(workspace: Workspace, point: Point, call: WorkspaceCall): Promise<Point> {
  using _lock = await workspace.lock("fork", call);
  await recoverWorkspace(workspace, call);
  return await takeOverPoint(workspace, siblingOf(workspace, point));
}

/** The other workspace that a name or a folder means. Throws `not_found`, and `unsupported` for one with a store of its own. */
function forkOf(workspace: Workspace, fork: string): FoundWorkspace {
  const { control, workspace: own } = workspace.found;
  const named = workspaceNamed(control, fork) ?? workspaceAt(realPathOf(fork));
  if (named === null || named.workspace.id === own.id)
    throw new CairnError("not_found", `there is no other workspace called ${JSON.stringify(fork.slice(0, 80))}`, {
      hint: advice`${call("workspaces", "listWorkspaces")} lists them`,
    });
  if (named.control.root === control.root) return named;
  throw new CairnError(
    "unsupported",
    `the workspace ${printablePath(named.folder)} has a store of its own, so its points are not targets here`,
    { hint: advice`to get a copy of its files: ${restoreLine(named.folder)}, with --to DIR` },
  );
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
