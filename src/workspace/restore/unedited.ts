import { lookBesideHead } from "../save/look.ts";
import { heldTreeProblem, treePlace } from "../points/held-trees.ts";
import { FOLDER_JOURNAL, isIntentPending } from "../points/journals.ts";
import type { Point } from "../points/point-files.ts";
import type { Workspace, WorkspaceCall } from "../open/workspace.ts";
import type { MethodOption } from "../../contract/points.ts";
import type { RestoreInput } from "./prepare.ts";

/**
 * Makes an undo a restore of the whole point if the folder was removed, or was not edited since an operation on all of
 * it. Then whole trees can be exchanged or cloned, so only clone drivers gain.
 */
export async function withoutNeedlessRevert<T extends RestoreInput & MethodOption>(
  workspace: Workspace,
  input: T,
): Promise<T> {
  const { reverts, ...plain } = input;
  if (reverts === undefined || input.paths !== null || reverts.keepPresent) return input;
  if (isIntentPending(workspace.found.paths.journal, FOLDER_JOURNAL)) return plain as T;
  if (workspace.engine.holder === null) return input;
  return (await isUnedited(workspace, reverts.left, input)) ? (plain as T) : input;
}

/**
 * True if the folder was not edited since the operation. A caller who asks for an exchange vouches for entries that
 * this user cannot read.
 */
async function isUnedited(
  workspace: Workspace,
  left: Point,
  { method, ...call }: WorkspaceCall & MethodOption,
): Promise<boolean> {
  if (await isStillTree(workspace, left)) return true;
  const { changes, leftOut } = await lookBesideHead(workspace, { ...call, head: left });
  return changes.added + changes.modified + changes.removed === 0 && (leftOut.length === 0 || method === "exchange");
}

/** Tells if the folder is unchanged since one was made from the other: the folder or the target's tree. */
export async function isStillTree({ engine, points, root, found }: Workspace, target: Point): Promise<boolean> {
  if (heldTreeProblem(points, target) !== null) return false;
  return (await engine.holder?.isStill?.(root, treePlace(points, target), found.control.temporary)) === true;
}
