import type { KeptContent, PointContent } from "../engines/engine.ts";
import type { SavePointId } from "../ids.ts";
import { listWorkspaces } from "./control-directory.ts";
import { type ControlPaths, workspacePaths } from "./control-layout.ts";
import type { Point } from "./point-files.ts";
import { Points } from "./points.ts";
import { listLeases } from "./leases.ts";
import { isReleased } from "./released.ts";
import type { Workspace } from "./workspace.ts";

/** Why a point must stay whatever the rules say. */
export type Protection = "pinned" | "head" | "latest" | "undo" | "view" | "fork-origin";

/** What keeps a point also where exactly it was asked for. */
export const NEVER_REMOVED: readonly Protection[] = ["pinned", "head", "view"];

/** What protects the points of a workspace; those without protection are absent. */
export function protectionsOf(workspace: Workspace, points: readonly Point[]): ReadonlyMap<SavePointId, Protection[]> {
  const reasons = new Map<SavePointId, Protection[]>();
  const add = (id: SavePointId | null | undefined, reason: Protection): void => {
    if (id === null || id === undefined) return;
    const known = reasons.get(id);
    if (known === undefined) reasons.set(id, [reason]);
    else if (!known.includes(reason)) known.push(reason);
  };
  const { head, last_restore: last } = workspace.state();
  add(head, "head");
  add(workspace.points.latest()?.descriptor.save_point_id, "latest");
  add(last?.undo_id, "undo");
  for (const { pin, descriptor } of points) if (pin !== null) add(descriptor.save_point_id, "pinned");
  for (const { save_point_id } of listLeases(workspace.found.control)) add(save_point_id, "view");
  for (const { workspace: other } of listWorkspaces(workspace.found.control)) {
    if (other !== null && !isReleased(other)) add(other.origin?.save_point_id, "fork-origin");
  }
  return reasons;
}

/** What all points of all workspaces of a control directory hold, but for some. Asked of the disk each time. */
export function keptContent(control: ControlPaths, without: ReadonlySet<SavePointId>): KeptContent {
  const contents: PointContent[] = [];
  const unreadable: (string | null)[] = [];
  for (const { name } of listWorkspaces(control)) {
    const { points, damaged } = new Points(workspacePaths(control, name)).list();
    for (const { descriptor, sealed } of points)
      if (sealed && !without.has(descriptor.save_point_id))
        contents.push(descriptor.content as unknown as PointContent);
    for (const { id } of damaged) if (id === null || !without.has(id)) unreadable.push(id);
  }
  return { contents, unreadable };
}

/** Of all workspaces of a control directory, those of damaged points too, as far as they are known. */
export function presentIds(control: ControlPaths): ReadonlySet<string> {
  const ids = new Set<string>();
  for (const { name } of listWorkspaces(control)) {
    const { points, damaged } = new Points(workspacePaths(control, name)).list();
    for (const { descriptor } of points) ids.add(descriptor.save_point_id);
    for (const { id } of damaged) if (id !== null) ids.add(id);
  }
  return ids;
}
