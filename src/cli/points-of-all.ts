import type { Client, SavePoint, WorkspaceInfo } from "../contract/index.ts";
import { CairnError, toCairnError } from "../errors.ts";
import type { Context } from "./context.ts";
import { printable } from "./render/format.ts";

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
  const isComplete = await inEach(context, workspaces, async (client, { path }) => {
    const { save_points: points } = await client.history(undefined, 0, { ...context.callOptions(), all: true });
    for (const point of points) all.push({ workspace: path, point });
  });
  const points = all.sort(
    (a, b) => Number(a.point.created_at < b.point.created_at) - Number(a.point.created_at > b.point.created_at),
  );
  return { points, isComplete };
}

/**
 * Returns the workspaces of points, each with its points. Throws `not_found` for a point that no workspace has,
 * `ambiguous` for a point that several have.
 */
export async function workspacesOf(context: Context, targets: readonly string[]): Promise<Map<string, string[]>> {
  const workspaces = await (await context.library()).listWorkspaces(context.callOptions());
  const found = new Map<string, string[]>(targets.map((target) => [target, []]));
  const isComplete = await inEach(context, workspaces, async (client, { path }) => {
    for (const target of targets)
      try {
        await client.resolve(target, context.callOptions());
        found.get(target)!.push(path);
      } catch (error) {
        const { code } = toCairnError(error);
        if (code === "ambiguous") found.get(target)!.push(path, path);
        else if (code !== "not_found" && code !== "invalid_id") throw error;
      }
  });
  const byFolder = new Map<string, string[]>();
  for (const [target, paths] of found) {
    const [path] = paths;
    if (path === undefined)
      throw new CairnError("not_found", `no workspace has the save point ${target}`, {
        hint: "`cairn workspaces --points` lists the points of all workspaces",
      });
    if (paths.length > 1)
      throw new CairnError(
        "ambiguous",
        `${target} is a save point of ${[...new Set(paths)].map(printable).join(" and ")}`,
        {
          hint: "give more digits of the id, or name the workspace with -C",
        },
      );
    if (!isComplete && !/^[0-9a-f]{32}$/i.test(target))
      throw new CairnError(
        "incomplete",
        `not every workspace could be read: ${target} may be a save point of an unread workspace, too`,
        {
          hint: "give the point's whole id, or name its workspace with -C",
        },
      );
    byFolder.set(path, [...(byFolder.get(path) ?? []), target]);
  }
  return byFolder;
}

/** Runs `work` for each workspace. Reports those that cannot be opened or read, and returns false then. */
async function inEach(
  context: Context,
  workspaces: readonly WorkspaceInfo[],
  work: (client: Client, workspace: WorkspaceInfo) => Promise<void>,
): Promise<boolean> {
  const library = await context.library();
  let isComplete = true;
  for (const workspace of workspaces) {
    try {
      await using client = await library.open(workspace.path, context.openOptions());
      await work(client, workspace);
    } catch (error) {
      const failed = toCairnError(error);
      if (failed.code === "interrupted") throw failed;
      isComplete = false;
      context.note(`${workspace.path}: ${failed.message}`);
    }
  }
  return isComplete;
}
