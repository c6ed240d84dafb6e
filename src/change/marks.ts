import { CairnError } from "../errors.ts";
import type { SavePoint, WorkspaceCallOptions } from "../contract/index.ts";
import type { Point } from "../workspace/points/point-files.ts";
import { checkPointTags } from "../workspace/points/targets.ts";
import type { Workspace } from "../workspace/open/workspace.ts";
import { publicPoint } from "../look/public-point.ts";

/** Changes a point's marks under the workspace's lock; the descriptor stays unchanged. */
async function mark(
  workspace: Workspace,
  { verb, target, options }: { verb: string; target: string; options: WorkspaceCallOptions },
  change: (point: Point) => void,
): Promise<SavePoint> {
  using _lock = await workspace.lock(verb, options);
  workspace.points.refresh();
  const point = workspace.resolveOwn(target);
  change(point);
  return publicPoint(workspace.points.read(point.sequence));
}

/** Protects a point from every cleanup. */
export async function pin(workspace: Workspace, target: string, options: WorkspaceCallOptions): Promise<SavePoint> {
  return mark(workspace, { verb: "pin", target, options }, (point) => {
    if (point.pin === null) workspace.points.writePin(point.sequence, { at: new Date().toISOString(), reason: "" });
  });
}

/** Removes a pin. */
export async function unpin(workspace: Workspace, target: string, options: WorkspaceCallOptions): Promise<SavePoint> {
  return mark(workspace, { verb: "unpin", target, options }, (point) => {
    if (point.pin !== null) workspace.points.writePin(point.sequence, null);
  });
}

/** Adds and removes tags. Throws `usage` for an empty tag, `not_found` if a tag to remove is missing. */
export async function tag(
  workspace: Workspace,
  target: string,
  { edit, options }: { edit: { add?: readonly string[]; remove?: readonly string[] }; options: WorkspaceCallOptions },
): Promise<SavePoint> {
  const { add = [], remove = [] } = edit;
  checkPointTags(add);
  return mark(workspace, { verb: "tag", target, options }, (point) => {
    const missing = remove.find((each) => !point.tags.includes(each));
    if (missing !== undefined) {
      throw new CairnError("not_found", `the point has no tag ${JSON.stringify(missing)}`, {
        hint: point.tags.length === 0 ? "it has no tags" : `it has ${point.tags.join(", ")}`,
      });
    }
    const tags = [...new Set([...point.tags, ...add])].filter((each) => !remove.includes(each));
    if (tags.join("\0") !== point.tags.join("\0")) workspace.points.writeTags(point.sequence, tags);
  });
}
