import type { Workspace } from "../workspace/workspace.ts";
import type { SavePoint, WorkspaceCallOptions } from "./contract.ts";
import { publicPoint } from "./public-point.ts";

/** Protects a point from every cleanup. Again changes nothing. */
export async function pin(workspace: Workspace, target: string, options: WorkspaceCallOptions): Promise<SavePoint> {
  using _lock = await workspace.lock("pin", options);
  workspace.points.refresh();
  const point = workspace.resolve(target);
  if (point.pin === null) workspace.points.writePin(point.sequence, { at: new Date().toISOString(), reason: "" });
  return publicPoint(workspace.points.read(point.sequence));
}
