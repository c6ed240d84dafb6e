import { advice, CairnError, call, option } from "../../errors.ts";
import type { AdoptForkOptions, RestoreResult } from "../../contract/points.ts";
import { plural } from "../../formats/sizes.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import type { FoundWorkspace } from "../../workspace/place/find-workspace.ts";
import type { Workspace, WorkspaceCall } from "../../workspace/open/workspace.ts";
import { type Point } from "../../workspace/points/point-files.ts";
import { type OutsidePoint, takenOver } from "../../workspace/open/siblings.ts";
import { receiveOutside } from "../../workspace/save/outside.ts";
import { siblingById, takeOverPoint } from "../../workspace/save/receive.ts";
import { lookBesideHead } from "../../workspace/save/look.ts";
import { presentOf } from "../../workspace/save/save.ts";
import { goingBack } from "../restore.ts";
import { COMES_HOME, forkOf, isBeside } from "./forks.ts";

/**
 * Brings a fork's present home, which is saved in the fork first. `fork`: the fork's name or folder. Throws `refused` if
 * the folder changed since the fork was made, unless `merge` or `over` says what becomes of these changes.
 */
export async function adoptFork(workspace: Workspace, fork: string, options: AdoptForkOptions): Promise<RestoreResult> {
  const found = forkOf(workspace, fork);
  const point = await presentOf(workspace, found, { ...options, message: COMES_HOME });
  if (!isBeside(workspace, found)) await receiveOutside(workspace, outsideOf(found, point), options);
  const { merge = false, over = false, throughSqlite = false, ...own } = options;
  if (merge && over) throw new CairnError("usage", "give merge or over, not both");
  return goingBack(workspace, { ...own, throughSqlite }, "restore", async () => {
    const wanted = { paths: null, kind: "adopt" } as const;
    const base = over ? null : baseOf(workspace, found);
    if (base !== null && !merge) await requireUnchanged(workspace, base, own);
    const target = await takenOverPoint(workspace, found, point);
    if (base === null || !merge) return { ...wanted, target };
    const changes = [{ found: target, left: base }];
    const relative = { changes, merges: true, throughSqlite };
    return { ...wanted, target, relative };
  });
}

/** Returns the point that the fork was made from. Throws `not_found` if it is gone. */
function baseOf(workspace: Workspace, { folder, workspace: { origin } }: FoundWorkspace): Point {
  const isOwn = origin?.workspace_id === workspace.found.workspace.id;
  const base = isOwn ? workspace.byId(origin!.save_point_id) : null;
  if (base !== null) return base;
  const shown = printablePath(folder);
  throw new CairnError(
    isOwn ? "not_found" : "refused",
    isOwn
      ? `the save point from which ${shown} was made is gone, so nobody can tell what changed since`
      : `${shown} is no fork of this workspace, so everything here would become as it is there`,
    { hint: advice`to make this folder equal to the fork in any case, add ${option("over")}` },
  );
}

/** Throws `refused` if the folder differs from the point that the fork was made from. */
async function requireUnchanged(workspace: Workspace, base: Point, own: WorkspaceCall): Promise<void> {
  const { changes } = await lookBesideHead(workspace, { ...own, head: base });
  const count = changes.added + changes.modified + changes.removed;
  if (count === 0) return;
  const id = base.descriptor.save_point_id.slice(0, 8);
  throw new CairnError(
    "refused",
    `this folder changed since the fork was made: ${plural(count, "entry")} would be lost; nothing was changed`,
    {
      hint: advice`${call(`diff ${id}`, "diff", base.descriptor.save_point_id)} lists them; ${option("merge")} brings the fork's changes home beside them, and ${option("over")} takes them away`,
      details: { changes, base: base.descriptor.save_point_id },
    },
  );
}

function outsideOf({ folder }: FoundWorkspace, { descriptor }: Point): OutsidePoint {
  return { folder: folder.toString("utf8"), id: descriptor.save_point_id };
}

async function takenOverPoint(workspace: Workspace, found: FoundWorkspace, point: Point): Promise<Point> {
  if (isBeside(workspace, found))
    return takeOverPoint(workspace, siblingById(workspace, point.descriptor.save_point_id));
  const own = takenOver(workspace.points, point.descriptor.save_point_id);
  if (own === null) throw new CairnError("not_found", "the point that was received of the fork is gone");
  return own;
}
