import { existsSync } from "node:fs";
import { join } from "node:path";
import type { ReleasePlan } from "../../contract/care.ts";
import { advice, CairnError, call, line } from "../../errors.ts";
import { planIdOf, requirePlan } from "../../crypto/plan-id.ts";
import { plural } from "../../formats/sizes.ts";
import { namesIfThere } from "../../fs/paths/names-in.ts";
import { requireUnmounted } from "../../fs/remove-all.ts";
import type { SavePointId } from "../../ids.ts";
import type { Workspace } from "../open/workspace.ts";
import { isReleased, listLeases } from "../place/control-directory.ts";
import { type FoundWorkspace, workspaceRef } from "../place/find-workspace.ts";
import { listPartials, listRemovals } from "../place/partials.ts";
import { allPoints } from "../points/points.ts";

/** The points, and perhaps the control directory, that a release deletes. Changes nothing. */

/** The facts of a removal of a workspace with its points. */
export interface Going {
  /** the whole control directory goes */
  isWhole: boolean;
  /** bytes of the store */
  bytes: number;
  /** the store has snapshots of other programs */
  foreign: boolean;
}

/** Returns the facts of a removal of a workspace with its points. Throws `busy` while the points are read. */
export async function goingOf({ found, engine }: Workspace): Promise<Going> {
  requireIdle(found);
  const { bytes, foreign } = isClosedForGood(found)
    ? { bytes: 0, foreign: false }
    : await engine.storeFacts({ foreign: true });
  const isWhole = isLastWorkspace(found) && !foreign;
  requireUnmounted(isWhole ? found.control.root : found.paths.root);
  return { isWhole, bytes, foreign };
}

/** Plans a release that deletes the points; changes nothing. Throws the same errors as the release. */
export async function planRelease(workspace: Workspace): Promise<ReleasePlan> {
  return planOf(workspace, await goingOf(workspace));
}

function planOf(workspace: Workspace, { isWhole }: Going): ReleasePlan {
  const { found } = workspace;
  const { ids, facts } = pointsThatGo(workspace);
  return {
    id: planIdOf(["release", found.workspace.id, isWhole, ...facts]),
    workspace: workspaceRef(found),
    save_point_ids: ids,
    control_directory_goes: isWhole,
  };
}

/** Throws `stale_plan` if a caller was shown another release than one that deletes `going`. */
export function requireShown(workspace: Workspace, going: Going, shown: string): void {
  const { id, save_point_ids: points } = planOf(workspace, going);
  const what = going.isWhole ? "the whole control directory" : "the workspace";
  requirePlan(shown, id, () => `it would delete ${what} with ${plural(points.length, "point")} now${newestOf(points)}`);
}

function newestOf([newest]: readonly SavePointId[]): string {
  return newest === undefined ? "" : `, the newest ${newest.slice(0, 8)}`;
}

/** Returns the points of a workspace, newest first, with the facts of each that bind a plan to it. */
export function pointsThatGo({ points: all }: Workspace): { ids: SavePointId[]; facts: unknown[][] } {
  const { points, damaged } = all.list();
  return {
    ids: points.map(({ descriptor }) => descriptor.save_point_id),
    facts: [
      ...points.map(({ descriptor, checksum, tags, pin }) => [descriptor.save_point_id, checksum, tags, pin !== null]),
      ...damaged.map(({ id, sequence }) => [id, sequence]),
    ],
  };
}

/**
 * Throws `busy` while a view of the points is open or a folder is being made from them. Throws `damaged` or
 * `newer_version` if the records cannot be read.
 */
export function requireIdle({ control, workspace }: FoundWorkspace): void {
  const views = listLeases(control).filter(({ workspace_id }) => workspace_id === workspace.id).length;
  if (views > 0) {
    const open = views === 1 ? "a view of its points is open" : `${views} views of its points are open`;
    throw new CairnError("busy", open, { hint: advice`close them first: ${line("view", "listViews")}` });
  }
  const { records, problems } = listPartials(control);
  // The rest of another fork's folder prevents no removal of a fork: the control directory and the record stay.
  const isGoing = listRemovals(control).records.some(
    ({ record: { workspace: fork, rest } }) =>
      fork.id !== workspace.id && !(rest === true && workspace.origin !== undefined),
  );
  if (isGoing)
    throw new CairnError("busy", `the removal of a fork is not finished in ${control.root}`, {
      hint: advice`wait until it has finished; if something prevents it, ${call("status")} warns of that`,
    });
  if (problems[0] !== undefined) throw problems[0];
  if (records.length > 0)
    throw new CairnError("busy", `a fork or restore into another folder is under way in ${control.root}`, {
      hint: "wait until it has finished",
    });
}

/**
 * True if the store has no key of Cairn any more, so nobody can read it. With a further key in `keys` the store may
 * belong to another user.
 */
function isClosedForGood({ control }: FoundWorkspace): boolean {
  if ([control.storeKey, control.storePassword].some((file) => existsSync(file))) return false;
  return namesIfThere(join(control.store, "keys")).length <= 1;
}

/** True if removing the control directory loses only this workspace. */
export function isLastWorkspace(found: FoundWorkspace): boolean {
  return allPoints(found.control).every(({ name, workspace, points }) => {
    if (name === found.workspace.name) return true;
    // An unreadable record may be of a folder that is kept.
    return workspace !== null && isReleased(workspace) && points.committed().length === 0;
  });
}
