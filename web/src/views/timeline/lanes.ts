import type { WorkspaceInfo } from "cairnstate/client";
import { call } from "../../app/calls.ts";

/** Forks of a workspace. Each is drawn as a lane that begins at the point from which it was made. */

export interface Lane {
  name: string;
  path: string;
  /** The point from which the fork was made. */
  from: string;
}

/** Most lanes that are drawn: more would leave too little space for the messages. */
const MOST_LANES = 6;

export async function lanesOf(workspace: string, signal: AbortSignal): Promise<Lane[]> {
  const all = await call("listWorkspaces", {}, { signal });
  const own = all.find(({ path }) => path === workspace);
  const others = all.filter((each) => isRelated(each, own) && each.path !== workspace && each.present);
  const lanes = await Promise.all(others.map(async (each) => laneOf(each, own!.name, signal).catch(() => null)));
  return lanes.filter((each) => each !== null).slice(0, MOST_LANES);
}

function isRelated(each: WorkspaceInfo, own: WorkspaceInfo | undefined): boolean {
  return own !== undefined && each.control_directory === own.control_directory && each.points > 0;
}

async function laneOf({ path, name }: WorkspaceInfo, own: string, signal: AbortSignal): Promise<Lane | null> {
  const { total = 0 } = await call(
    "history",
    { workspace: path, limit: 1, options: { all: true, skip: 0 } },
    { signal },
  );
  const options = { all: true, skip: Math.max(0, total - 1) };
  const { save_points } = await call("history", { workspace: path, limit: 1, options }, { signal });
  const cause = save_points[0]?.cause;
  if (cause?.kind !== "fork" || cause["from_workspace"] !== own) return null;
  return { name, path, from: cause["from"] as string };
}
