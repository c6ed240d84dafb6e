import { join } from "node:path";
import { failpoint } from "../../failpoint.ts";
import type { ProbeResult } from "../../contract/snapshots.ts";
import { removeAll } from "../../fs/remove-all.ts";
import { newWorkDirectory } from "../../fs/work-directory.ts";
import { howItComes } from "../../workspace/new-folder/first-point.ts";
import { placeCopy } from "../../workspace/new-folder/write-point.ts";
import type { Workspace, WorkspaceCall } from "../../workspace/open/workspace.ts";
import type { Point } from "../../workspace/points/point-files.ts";
import { type RanProbe, runProbes } from "../open/checks.ts";

/**
 * Runs probes on a temporary copy of a sealed point in the control directory. After a kill the next command that takes
 * the workspace's lock removes the copy.
 */
export async function probePoint(
  workspace: Workspace,
  point: Point,
  { probe, ...call }: WorkspaceCall & { probe: readonly string[] },
): Promise<RanProbe[]> {
  const work = newWorkDirectory(workspace.found.control.temporary);
  const folder = join(work, "point");
  try {
    const { isCopied } = await howItComes(workspace, point, { ...call, target: Buffer.from(folder) });
    const hint = "free some space there: probes run on a copy of the point in the control directory";
    await placeCopy(workspace, point, { folder, isCopied, hint }, call);
    failpoint("backup.probing");
    const ran = await runProbes(probe, folder, call.signal);
    for (const { record, failure } of ran)
      if (failure !== null) call.onWarning?.(`the probe ${record.command} ${failure}`);
    return ran;
  } finally {
    removeAll(work);
  }
}

export function publicProbe({ record, failure }: RanProbe): ProbeResult {
  const { command, status, output_b64: output } = record;
  return { command, status, output: Buffer.from(output, "base64").toString("utf8"), failure };
}
