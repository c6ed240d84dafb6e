import { renameSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { CairnError, toCairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { durableRemove, fsyncDirectory, temporaryName } from "../fs/durable.ts";
import { removeAll } from "../fs/remove-all.ts";
import { newWorkDirectory } from "../fs/work-directory.ts";
import { listWorkspaces, writeWorkspace } from "./control-directory.ts";
import { workspacePaths } from "./control-layout.ts";
import type { FoundWorkspace } from "./find-workspace.ts";
import { listLeases } from "./leases.ts";
import { listPartials } from "./partial-folder.ts";
import { Points } from "./points.ts";
import { noteRelease, unregister } from "./registry.ts";
import { isReleased, withRelease } from "./released.ts";
import { removeStatCaches } from "./temporaries.ts";

/** Taking a folder out of our care. For the holder of the registry's and the workspace's locks. */

/** The points stay; an adoption of the same folder takes them up again. The mark is the commit point. */
export function retireWorkspace(found: FoundWorkspace): void {
  const { control, workspace, folder } = found;
  writeWorkspace(control, withRelease(workspace));
  failpoint("release.marked");
  unregister(folder);
  failpoint("release.unregistered");
}

/** True when nothing but this workspace would be lost with the control directory. */
export function isLastWorkspace(found: FoundWorkspace): boolean {
  return listWorkspaces(found.control).every(({ name, workspace }) => {
    if (name === found.workspace.name) return true;
    // A record that cannot be read may be of a folder that is kept.
    if (workspace === null || !isReleased(workspace)) return false;
    return new Points(workspacePaths(found.control, name)).committed().length === 0;
  });
}

/**
 * Removes the whole control directory; the rename is the commit point. Until then the folder is kept as it was. After it
 * nothing is found by its registration any more, and the next holder of the registry's lock removes that and what is left.
 */
export function removeControlDirectory(found: FoundWorkspace): void {
  const { root } = found.control;
  const parent = dirname(root);
  const doomed = join(parent, temporaryName());
  const note = noteRelease({
    folder: found.folder,
    control: doomed,
    controlId: found.controlFile.id,
    workspaceId: found.workspace.id,
    workspaceName: found.workspace.name,
  });
  failpoint("release.noted");
  try {
    renameSync(root, doomed);
    fsyncDirectory(parent);
  } catch (error) {
    throw toCairnError(error, `remove ${root}`);
  }
  failpoint("release.control-renamed");
  unregister(found.folder);
  failpoint("release.control-unregistered");
  removeAll(doomed);
  failpoint("release.control-removed");
  durableRemove(note);
}

/**
 * Removes one workspace of several with its records; what its points hold in the store is the caller's to free. The
 * rename is the commit point: a registration for which there is no workspace finds nothing, and is forgotten like one.
 */
export function removeWorkspace(found: FoundWorkspace): void {
  const { control, paths, workspace } = found;
  // The name tells whoever comes after a kill that its process is gone, and so that it may be removed.
  const doomed = newWorkDirectory(control.temporary);
  try {
    renameSync(paths.root, doomed);
    fsyncDirectory(control.workspaces);
  } catch (error) {
    throw toCairnError(error, `remove ${paths.root}`);
  }
  failpoint("release.workspace-renamed");
  unregister(found.folder);
  failpoint("release.workspace-unregistered");
  removeAll(doomed);
  for (const cache of [paths.catalog, paths.engines]) rmSync(cache, { force: true });
  removeStatCaches(control, workspace.id);
}

/**
 * Throws `busy` while a view of its points is open or a folder is being made from them, `damaged` or `newer_version` where
 * that cannot be known.
 */
export function requireIdle(found: FoundWorkspace): void {
  const { control, workspace } = found;
  const views = listLeases(control).filter(({ workspace_id }) => workspace_id === workspace.id).length;
  if (views > 0) {
    throw new CairnError(
      "busy",
      `${views === 1 ? "a view" : `${views} views`} of its points ${views === 1 ? "is" : "are"} open`,
      {
        hint: "close them first: cairn view --list",
      },
    );
  }
  const { partials, problems } = listPartials(control);
  if (problems[0] !== undefined) throw problems[0];
  if (partials.length > 0)
    throw new CairnError("busy", `a fork or restore into another folder is under way in ${control.root}`, {
      hint: "wait for its end",
    });
}
