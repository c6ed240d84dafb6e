import { probeHolder } from "../engines/tree/probe.ts";
import { examineWorkspace } from "../workspace/doctor.ts";
import { isFolderThere } from "../workspace/missing-folder.ts";
import type { Workspace } from "../workspace/workspace.ts";
import type { DoctorOptions, DoctorResult, EngineType } from "./contract.ts";

/** What is wrong with all that belongs to a control directory, and, when asked, mends it. */
export async function doctor(workspace: Workspace, options: DoctorOptions): Promise<DoctorResult> {
  const { healthy, findings } = await examineWorkspace(workspace, options);
  return { healthy, findings: [...findings, ...(await engineFindings(workspace, options))] };
}

/** An engine that works no more is no damage: every point then says that the store has its content, and why. */
async function engineFindings(
  { root: folder, found }: Workspace,
  { signal }: DoctorOptions,
): Promise<DoctorResult["findings"]> {
  const engine = found.controlFile.engine as EngineType;
  // Of a folder that is not there nothing can be known.
  const place = found.control.root;
  const isAsked = engine !== "copy" && isFolderThere(folder);
  const answer = isAsked ? await probeHolder(engine, { folder, place, signal }) : null;
  if (answer === null) return [];
  const hint = answer.hint === undefined ? "" : `; ${answer.hint}`;
  const detail = `${engine} does not work here now, and what is saved goes into the store: ${answer.reason}${hint}`;
  return [{ kind: "engine", severity: "warning", detail }];
}
