import fs from "node:fs";
import { CairnError } from "../../errors.ts";
import type { MethodOption } from "../../contract/points.ts";
import { isSubvolume } from "../../fs/linux/btrfs.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import type { Workspace } from "../open/workspace.ts";
import { heldTreeProblem, treePlace } from "../points/held-trees.ts";
import type { Point } from "../points/point-files.ts";
import { lookBesideHead } from "../save/look.ts";
import { withSidecars } from "./open-databases.ts";
import { Absolute } from "../rules/wanted.ts";
import type { RestoreInput } from "./prepare.ts";

export type Asked = RestoreInput & MethodOption;

/** Returns the restore of a caller, with all paths that belong to it. Throws `permission` for a read-only folder. */
export async function checked(workspace: Workspace, asked: Asked): Promise<Asked> {
  requireWritable(workspace);
  const { change, target } = asked;
  // The paths of a relative change come from its operation, sidecars included.
  if (change.isRelative) return withoutNeedlessRevert(workspace, asked);
  const paths = withSidecars(rootsOf(workspace, asked), target.descriptor, change.paths);
  return { ...asked, change: change.withPaths(paths) };
}

/** Returns the folder, and the tree of an unsealed point, whose databases have no labels yet. */
function rootsOf({ root, points }: Workspace, { target }: Pick<RestoreInput, "target">): Buffer[] {
  return target.sealed ? [root] : [root, Buffer.from(treePlace(points, target))];
}

/**
 * Makes an undo a restore of the whole point if the folder was removed, or was not edited since an operation on all of
 * it. Then whole trees can be exchanged or cloned, so only clone drivers gain.
 */
export async function withoutNeedlessRevert(workspace: Workspace, input: Asked): Promise<Asked> {
  const { change } = input;
  const left = change.leftWhole();
  // A plan is of the entries of the relative change.
  if (left === null || input.plan !== undefined) return input;
  const plain = { ...input, change: new Absolute({}) };
  if (workspace.unfinished("missing-folder").isBegun) return plain;
  if (workspace.engine.holder === null) return input;
  if (await isStillTree(workspace, left)) return plain;
  const { method, ...call } = input;
  const { changes, leftOut } = await lookBesideHead(workspace, { ...call, head: left });
  const isUnedited = changes.added + changes.modified + changes.removed === 0;
  // A caller who asks for an exchange vouches for entries that this user cannot read.
  return isUnedited && (leftOut.length === 0 || method === "exchange") ? plain : input;
}

/** Tells if nothing changed since the target's tree was made of the folder, or the folder restored from that tree. */
export async function isStillTree({ engine, points, root, found }: Workspace, target: Point): Promise<boolean> {
  if (heldTreeProblem(points, target) !== null) return false;
  return (await engine.holder?.isStill?.(root, treePlace(points, target), found.control.temporary)) === true;
}

/** Throws `permission` for a read-only folder, before anything is read. */
function requireWritable({ root }: Workspace): void {
  try {
    fs.accessSync(root, fs.constants.W_OK);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EROFS") return;
    const shown = printablePath(root);
    const isOwn = isSubvolume(root);
    throw new CairnError("permission", `${shown} cannot be restored: it is read-only`, {
      hint: isOwn
        ? `if the subvolume is read-only, as after \`btrfs receive\`: btrfs property set -ts ${shown} ro false`
        : "find out why its file system is mounted read-only, then mount it again for writing",
      cause: error,
    });
  }
}
