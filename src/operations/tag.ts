import { CairnError } from "../errors.ts";
import type { Workspace } from "../workspace/workspace.ts";
import type { SavePoint, WorkspaceCallOptions } from "./contract.ts";
import { publicPoint } from "./public-point.ts";

export interface TagEdit {
  add?: readonly string[];
  remove?: readonly string[];
}

const MAX_TAG_LENGTH = 1000;

/** Throws `usage` for a tag that is empty or longer than 1000 characters. */
export function checkTags(tags: readonly string[]): void {
  const wrong = tags.find((each) => each.trim() === "" || each.length > MAX_TAG_LENGTH);
  if (wrong !== undefined) throw new CairnError("usage", `not a tag: ${JSON.stringify(wrong.slice(0, 80))}`);
}

/** Adds and removes tags; the descriptor stays as it is. Throws `usage` for an empty tag, `not_found` for one to remove that is not there. */
export async function tag(
  workspace: Workspace,
  target: string,
  request: { edit: TagEdit; options: WorkspaceCallOptions },
): Promise<SavePoint> {
  const { add = [], remove = [] } = request.edit;
  checkTags(add);
  using _lock = await workspace.lock("tag", request.options);
  workspace.points.refresh();
  const point = workspace.resolve(target);
  const missing = remove.find((each) => !point.tags.includes(each));
  if (missing !== undefined) {
    throw new CairnError("not_found", `the point has no tag ${JSON.stringify(missing)}`, {
      hint: point.tags.length === 0 ? "it has no tags" : `it has ${point.tags.join(", ")}`,
    });
  }
  const tags = [...new Set([...point.tags, ...add])].filter((each) => !remove.includes(each));
  if (tags.join("\0") !== point.tags.join("\0")) workspace.points.writeTags(point.sequence, tags);
  return publicPoint(workspace.points.read(point.sequence));
}
