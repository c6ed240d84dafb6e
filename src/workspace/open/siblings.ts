import { AsyncLocalStorage } from "node:async_hooks";
import { CairnError, toCairnError } from "../../errors.ts";
import { isReleased, listWorkspaces, type PlacedWorkspace, readState } from "../place/control-directory.ts";
import { type FoundWorkspace, realPathOf, workspaceAt, workspaceIn } from "../place/find-workspace.ts";
import type { SavePointId } from "../../ids.ts";
import { type ControlPaths, workspacePaths } from "../place/control-layout.ts";
import { NO_SEQUENCE, type Point } from "../points/point-files.ts";
import { Points } from "../points/points.ts";
import { resolveTarget } from "../points/targets.ts";

/**
 * Finds points of other workspaces: those of the same control directory (such as forks), which share the store, and
 * those of other control directories.
 */

const LEAST_DIGITS = 4;

/**
 * Hides other workspaces within `run(true, …)`. The daemon does that for agents and other users, since one control
 * directory may keep folders of several users.
 */
export const ownPointsOnly = new AsyncLocalStorage<boolean>();

/** A point of another workspace, as this workspace can read it. */
interface SiblingPoint {
  point: Point;
  workspace: PlacedWorkspace;
}

function siblings(control: ControlPaths, own: string): PlacedWorkspace[] {
  return listWorkspaces(control).flatMap(({ workspace }) =>
    workspace === null || workspace.id === own || isReleased(workspace) ? [] : [workspace],
  );
}

/**
 * Finds `target` in the other workspaces: `NAME:POINT`, `FOLDER:POINT`, or digits of an id. Null if no other workspace
 * has it. Throws `ambiguous` if several ids begin with the digits, and the errors of resolving `POINT`.
 */
export function siblingPoint(control: ControlPaths, own: string, target: string): SiblingPoint | null {
  if (ownPointsOnly.getStore() === true) return null;
  const others = siblings(control, own);
  for (const workspace of others) {
    const word = [workspace.name, workspace.path].find((each) => target.startsWith(`${each}:`));
    if (word === undefined) continue;
    const { points, head } = pointsOf(control, workspace);
    return asSibling(resolveTarget(points, target.slice(word.length + 1) || "latest", head), workspace);
  }
  if (!new RegExp(`^[0-9a-f]{${LEAST_DIGITS},32}$`, "i").test(target)) return null;
  const found = others.flatMap((workspace) =>
    pointsOf(control, workspace)
      .points.withPrefix(target.toLowerCase())
      .flatMap((each) => ("problem" in each ? [] : [asSibling(each, workspace)])),
  );
  if (found.length < 2) return found[0] ?? null;
  throw new CairnError("ambiguous", `${found.length} points of other workspaces begin with ${target}`, {
    hint: `use more digits, or name the workspace: ${found[0]!.workspace.name}:${target}`,
  });
}

function pointsOf(
  control: ControlPaths,
  { name }: PlacedWorkspace,
): { points: Points; head: Point["descriptor"]["parent_id"] } {
  const paths = workspacePaths(control, name);
  return { points: new Points(paths), head: readState(paths).head };
}

/** Drops the point's held tree: other workspaces read only its content in the store. */
function asSibling(point: Point, workspace: PlacedWorkspace): SiblingPoint {
  const { held: _held, ...content } = point.descriptor.content;
  const descriptor = { ...point.descriptor, content: content as Point["descriptor"]["content"] };
  return { point: { ...point, descriptor, sequence: NO_SEQUENCE }, workspace };
}

/** Returns the point in `points` that was made from another workspace's point `id`; null if there is none. */
export function takenOver(points: Points, id: SavePointId): Point | null {
  const isMadeOf = ({ descriptor: { cause, undo } }: Point): boolean =>
    undo && cause.kind === "adopt" && cause["from"] === id;
  return points.list().points.find(isMadeOf) ?? null;
}

/** A point of a workspace with a store of its own. */
export interface OutsidePoint {
  folder: string;
  id: SavePointId;
}

/**
 * Finds `FOLDER:POINT`, with the absolute path of a workspace of another control directory. Null if there is none, or
 * if the daemon asks. Throws the errors of resolving `POINT`.
 */
export function outsidePoint(control: ControlPaths, target: string): OutsidePoint | null {
  if (ownPointsOnly.getStore() !== undefined || !target.startsWith("/")) return null;
  for (let colon = target.indexOf(":"); colon > 0; colon = target.indexOf(":", colon + 1)) {
    const folder = target.slice(0, colon);
    const found = workspaceAt(realPathOf(folder));
    if (found === null || found.control.root === control.root) continue;
    const point = resolveTarget(
      new Points(found.paths),
      target.slice(colon + 1) || "latest",
      readState(found.paths).head,
    );
    return { folder, id: point.descriptor.save_point_id };
  }
  return null;
}

/**
 * Finds the point of another workspace as `siblingPoint` and `outsidePoint` do, for a call that works in that workspace
 * itself. Null if no other workspace has the point.
 */
export function pointElsewhere(
  { control, workspace }: FoundWorkspace,
  target: string,
): { found: FoundWorkspace; id: SavePointId } | null {
  const sibling = siblingPoint(control, workspace.id, target);
  if (sibling !== null)
    return { found: workspaceIn(control, sibling.workspace), id: sibling.point.descriptor.save_point_id };
  const outside = outsidePoint(control, target);
  return outside && { found: workspaceAt(realPathOf(outside.folder))!, id: outside.id };
}

/** True for an error that means that this workspace has no such point. */
export function isUnknownHere(error: unknown): boolean {
  const { code } = toCairnError(error);
  return code === "not_found" || code === "invalid_id";
}
