import type { Workspace } from "../workspace/workspace.ts";
import { verifyAll as verifyEverything, verifyPoint } from "../workspace/verify.ts";
import type { CallOptions, VerifyResult, WorkspaceCallOptions } from "./contract.ts";

/** Reads everything of one point and names all that is not as it was saved. */
export async function verify(
  workspace: Workspace,
  target: string,
  options: WorkspaceCallOptions,
): Promise<VerifyResult> {
  return verifyPoint(workspace, target, options);
}

/** Every point of every workspace of the control directory, and the store itself. */
export async function verifyAll(workspace: Workspace, options: CallOptions): Promise<VerifyResult> {
  return verifyEverything(workspace, options);
}
