import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { CairnError } from "../errors.ts";
import { printablePath, shellPath } from "../fs/safe-path.ts";
import { type ListedWorkspace, listWorkspaces } from "../workspace/control-directory.ts";
import { controlPaths, MAIN_WORKSPACE, SELF_CONTAINED_CONTROL } from "../workspace/control-layout.ts";
import { realPathOf } from "../workspace/find-workspace.ts";
import { controlOf, finishReleases, lockRegistry, readRegistration, unregister } from "../workspace/registry.ts";
import { isReleased } from "../workspace/released.ts";
import { lockingOf } from "../workspace/workspace.ts";
import type { CallOptions } from "./contract.ts";

/**
 * Forgets where the points of a folder lay, when its control directory, or the workspace in it, is gone for good; what a
 * killed release left of it goes. False when the folder was not known. Throws `conflict` while its points are there: then
 * `release` is meant.
 */
export async function forget(path: string, options: CallOptions): Promise<boolean> {
  const folder = realPathOf(path);
  using _registry = await lockRegistry(lockingOf("release", options));
  if (finishReleases().some((left) => left.folder.equals(folder))) return true;
  const registration = readRegistration(folder);
  if (registration === null) return forgetSelfContained(folder);
  const control = controlPaths(controlOf(registration));
  // A release that was killed after it had removed the points of one workspace of several leaves the rest there.
  const hasIt = ({ name, workspace }: ListedWorkspace): boolean =>
    workspace === null ? name === registration.workspace_name : workspace.id === registration.workspace_id;
  const isThere = existsSync(control.file) && existsSync(control.workspaces);
  const kept = isThere ? listWorkspaces(control).find(hasIt) : undefined;
  if (kept !== undefined) {
    const again = `\`cairn init ${shellPath(folder)}\` takes it up again, and then it can be released`;
    throw new CairnError("conflict", `the points of ${printablePath(folder)} are still there, in ${control.root}`, {
      hint:
        kept.workspace !== null && isReleased(kept.workspace)
          ? `a release of it was interrupted: ${again}`
          : "use cairn release",
    });
  }
  return unregister(folder);
}

/** By its workspace or its root, when what lies beside it is gone; while that is there, it is noted again anyway. */
function forgetSelfContained(folder: Buffer): boolean {
  for (const main of [folder, Buffer.concat([folder, Buffer.from(`/${MAIN_WORKSPACE}`)])]) {
    const beside = join(dirname(main.toString("utf8")), SELF_CONTAINED_CONTROL);
    if (!existsSync(controlPaths(beside).file) && unregister(main)) return true;
  }
  return false;
}
