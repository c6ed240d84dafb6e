import { examineWorkspace } from "../workspace/doctor.ts";
import type { Workspace } from "../workspace/workspace.ts";
import type { DoctorOptions, DoctorResult } from "./contract.ts";

/** What is wrong with all that belongs to a control directory, and, when asked, mends it. */
export async function doctor(workspace: Workspace, options: DoctorOptions): Promise<DoctorResult> {
  return examineWorkspace(workspace, options);
}
