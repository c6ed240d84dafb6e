import { toCairnError } from "../errors.ts";
import { workspaceIn } from "../workspace/find-workspace.ts";
import { allPoints } from "../workspace/points.ts";
import { ensureSealed, type SealProblem } from "../workspace/seal.ts";
import { verifyAll as verifyEverything, type VerifyInput, verifyPoint } from "../workspace/verify.ts";
import { type WorkspaceParts, Workspace, type WorkspaceCall } from "../workspace/workspace.ts";
import type { VerifyResult } from "../contract/index.ts";

/** Reads everything of one point and names all that is not as it was saved. */
export async function verify(workspace: Workspace, target: string, input: VerifyInput): Promise<VerifyResult> {
  return verifyPoint(workspace, target, input);
}

/** Every point of every workspace of the control directory, sealed for it where that can be done, and the store itself. */
export async function verifyAll(workspace: Workspace, parts: WorkspaceParts, call: VerifyInput): Promise<VerifyResult> {
  const { control } = workspace.found;
  const unsealed = new Map<string, readonly SealProblem[]>();
  const newest = new Map<string, number>();
  const workspaces = allPoints(control);
  for (const { name, points } of workspaces) newest.set(name, points.committed().at(-1) ?? 0);
  for (const { name, workspace: each } of workspaces) {
    // What cannot be opened is a problem of its own.
    if (each === null) continue;
    await using other = new Workspace(workspaceIn(control, each), parts, workspace.removals);
    unsealed.set(name, await sealIn(other, call));
  }
  return verifyEverything(workspace, { ...call, unsealed, newest });
}

/**
 * Seals what one workspace only holds, under its own lock and no other; its folder is not looked at. That something is
 * in the way keeps nobody from verifying the rest.
 */
async function sealIn(workspace: Workspace, call: WorkspaceCall): Promise<readonly SealProblem[]> {
  try {
    const { problems } = await ensureSealed(workspace, call);
    return problems;
  } catch (error) {
    const problem = toCairnError(error);
    if (problem.code === "interrupted" || problem.code === "internal") throw problem;
    return [{ id: null, problem }];
  }
}
