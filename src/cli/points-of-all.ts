import type { SavePoint, WorkspaceInfo } from "../contract/index.ts";
import { toCairnError } from "../errors.ts";
import type { Context } from "./context.ts";

/** A point with its workspace's folder. */
export interface PointOf {
  workspace: string;
  point: SavePoint;
}

/** Returns the save points of workspaces, newest first. Reports workspaces that cannot be read. */
export async function pointsOfAll(
  context: Context,
  workspaces: readonly WorkspaceInfo[],
): Promise<{ points: PointOf[]; isComplete: boolean }> {
  const all: PointOf[] = [];
  const library = await context.library();
  let isComplete = true;
  for (const { path } of workspaces) {
    try {
      await using client = await library.open(path, context.openOptions());
      const { save_points: points } = await client.history(undefined, 0, { ...context.callOptions(), all: true });
      for (const point of points) all.push({ workspace: path, point });
    } catch (error) {
      const failed = toCairnError(error);
      if (failed.code === "interrupted") throw failed;
      isComplete = false;
      context.note(`${path}: ${failed.message}`);
    }
  }
  const points = all.sort(
    (a, b) => Number(a.point.created_at < b.point.created_at) - Number(a.point.created_at > b.point.created_at),
  );
  return { points, isComplete };
}
