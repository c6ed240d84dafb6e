import type { Workspace } from "../workspace/workspace.ts";
import { verifyAll as verifyEverything, type VerifyInput, verifyPoint } from "../workspace/verify.ts";
import type { VerifyResult } from "./contract.ts";

/** Reads everything of one point and names all that is not as it was saved. */
export async function verify(workspace: Workspace, target: string, input: VerifyInput): Promise<VerifyResult> {
  return verifyPoint(workspace, target, input);
}

/** Every point of every workspace of the control directory, and the store itself. */
export async function verifyAll(workspace: Workspace, input: VerifyInput): Promise<VerifyResult> {
  return verifyEverything(workspace, input);
}
