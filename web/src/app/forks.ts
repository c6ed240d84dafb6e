import type { WorkspaceInfo } from "cairnstate/client";
import { call } from "./calls.ts";

/** A workspace that was made from a point of another one. */
export type Fork = WorkspaceInfo & { origin: NonNullable<WorkspaceInfo["origin"]> };

/** Lists the forks of a workspace by path, also those whose folder is missing. */
export async function forksOf(workspace: string, signal: AbortSignal): Promise<Fork[]> {
  const all = await call("listWorkspaces", {}, { signal });
  const own = all.find(({ path }) => path === workspace);
  return all.filter((each): each is Fork => own !== undefined && each.origin?.workspace_id === own.id);
}
