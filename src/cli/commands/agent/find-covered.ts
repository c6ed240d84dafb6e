import { coverageOf, readCovered } from "../../../agents/covered.ts";
import type { CallOptions } from "../../../contract/index.ts";
import { releasedRegistration } from "../../../workspace/place/registry.ts";
import type { Context } from "../../context.ts";

/**
 * Finds the workspace of a folder in which a tool works. Another worktree of a covered repository becomes a workspace, unless it was
 * released. Returns null if there is none.
 */
export async function findCovered(
  context: Context,
  tool: string,
  folder: string,
  options: CallOptions,
): Promise<string | null> {
  const library = await context.library();
  const found = await library.find(folder, options);
  const list = found === null ? readCovered(context.env) : null;
  const coverage = list === null ? null : coverageOf(list, tool, folder);
  if (coverage?.by !== "family" || releasedRegistration(coverage.root!) !== null) return found;
  await using client = await library.openOrInit(coverage.root!, options);
  return client.workspacePath();
}
