import { examineWorkspace, whyNotWritable } from "../workspace/doctor.ts";
import { isFolderThere } from "../workspace/missing-folder.ts";
import type { Workspace } from "../workspace/workspace.ts";
import type { DoctorOptions, DoctorResult, EngineReason, Finding } from "../contract/index.ts";
import { probeReasons, rememberedReasons } from "./engine.ts";

/** What is wrong with all that belongs to a control directory, and, when asked, mends it; which engine is in use, and why. */
export async function doctor(workspace: Workspace, options: DoctorOptions): Promise<DoctorResult> {
  const { root, found } = workspace;
  const { healthy, findings } = await examineWorkspace(workspace, options);
  // Of a folder that is not there nothing can be known.
  const { works, reasons } = isFolderThere(root)
    ? await probeReasons(found, options.signal)
    : { works: true, reasons: rememberedReasons(found) };
  const used = reasons.find(({ chosen }) => chosen)!;
  const all = works ? findings : [...findings, engineFinding(used, whyNotWritable(found.control.root) === null)];
  return { healthy, findings: all, engine: used.engine, engine_reasons: reasons };
}

/** An engine that works no more is no damage: every point then says that the store has its content, and why. */
function engineFinding({ engine, reason, hint }: EngineReason, canSave: boolean): Finding {
  const help = hint === undefined ? "" : `; ${hint}`;
  const instead = canSave ? ", and what is saved goes into the store" : "";
  const detail = `${engine} does not work here now${instead}: ${reason}${help}`;
  return { kind: "engine", severity: "warning", detail };
}
