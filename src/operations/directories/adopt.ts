import { CairnError } from "../../errors.ts";
import type { AdoptForkOptions, RestoreResult } from "../../contract/points.ts";
import type { FoundWorkspace } from "../../workspace/place/find-workspace.ts";
import type { Workspace } from "../../workspace/open/workspace.ts";
import { type Point } from "../../workspace/points/point-files.ts";
import { type OutsidePoint, takenOver } from "../../workspace/open/siblings.ts";
import { receiveOutside } from "../../workspace/save/outside.ts";
import { siblingById, takeOverPoint } from "../../workspace/save/receive.ts";
import { presentOf } from "../../workspace/save/save.ts";
import { goingBack } from "../restore.ts";
import { COMES_HOME, forkOf, isBeside } from "./forks.ts";

/** Makes the folder equal to a fork's present, which is saved in the fork first. `fork`: the fork's name or folder. */
export async function adoptFork(workspace: Workspace, fork: string, options: AdoptForkOptions): Promise<RestoreResult> {
  const found = forkOf(workspace, fork);
  const point = await presentOf(workspace, found, { ...options, message: COMES_HOME });
  if (!isBeside(workspace, found)) await receiveOutside(workspace, outsideOf(found, point), options);
  return goingBack(workspace, options, "restore", async () => ({
    target: await takenOverPoint(workspace, found, point),
    paths: null,
    keepPresent: false,
    kind: "adopt",
  }));
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
