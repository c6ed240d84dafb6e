import type { Workspace } from "../workspace/workspace.ts";
import type { SavePoint, WorkspaceCallOptions } from "./contract.ts";
import { publicPoint } from "./public-point.ts";

/** Takes a pin back; without one nothing changes. */
export async function unpin(workspace: Workspace, target: string, options: WorkspaceCallOptions): Promise<SavePoint> {
  using _lock = await workspace.lock("unpin", options);
  workspace.points.refresh();
  const point = workspace.resolve(target);
  if (point.pin !== null) workspace.points.writePin(point.sequence, null);
  return publicPoint(workspace.points.read(point.sequence));
}
