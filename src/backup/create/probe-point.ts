import { join } from "node:path";
import { howItComes } from "../../workspace/new-folder/first-point.ts";
import { isDeepStrictEqual } from "node:util";
import { failpoint } from "../../failpoint.ts";
import type { CreateBackupOptions, ProbeResult } from "../../contract/snapshots.ts";
import { plural } from "../../formats/sizes.ts";
import { listedNames, printablePath } from "../../fs/paths/safe-path.ts";
import { removeAll } from "../../fs/remove-all.ts";
import { newWorkDirectory } from "../../fs/work-directory.ts";
import { placeCopy } from "../../workspace/new-folder/write-point.ts";
import type { Workspace, WorkspaceCall } from "../../workspace/open/workspace.ts";
import type { Point } from "../../workspace/points/point-files.ts";
import { type RanProbe, readChecks, runProbes, type SnapshotChecks } from "../open/checks.ts";
import { callOf } from "../open/open-repository.ts";
import type { Session } from "../open/session.ts";
import { pointOf } from "../open/snapshots.ts";
import type { ListedSnapshot } from "../../repository/repository.ts";

interface AskedPoint {
  session: Session;
  workspace: Workspace;
  point: Point;
  options: CreateBackupOptions;
}

/** Returns a snapshot's checks and the answers in them. Runs probes only if the point's last snapshot lacks their answers. */
export async function askPoint(
  { session, workspace, point, options }: AskedPoint,
  parent: ListedSnapshot | null,
): Promise<{ checks: SnapshotChecks; probes: ProbeResult[] }> {
  const { probe = [] } = options;
  const { rows = [] } = point.descriptor;
  const isSame = parent !== null && pointOf(parent.snapshot) === point.descriptor.save_point_id;
  const before = isSame ? await readChecks(session.reader, parent, () => undefined) : null;
  const known = before?.probes ?? [];
  const isAnswered = isDeepStrictEqual(new Set(known.map(({ command }) => command)), new Set(probe));
  const answers =
    isAnswered && known.every(({ status }) => status === 0)
      ? known.map((record) => ({ record, failure: null }))
      : await probePoint(workspace, point, { ...callOf(options), probe });
  return { checks: { rows, probes: answers.map(({ record }) => record) }, probes: answers.map(publicProbe) };
}

/**
 * Runs probes on a temporary copy of a sealed point in the control directory. After a kill the next command that takes
 * the workspace's lock removes the copy.
 */
async function probePoint(
  workspace: Workspace,
  point: Point,
  { probe, ...call }: WorkspaceCall & { probe: readonly string[] },
): Promise<RanProbe[]> {
  const work = newWorkDirectory(workspace.found.control.temporary);
  const folder = join(work, "point");
  try {
    const { isCopied } = await howItComes(workspace, point, { ...call, target: Buffer.from(folder) });
    const hint = "free some space there: probes run on a copy of the point in the control directory";
    const lacking = await placeCopy(workspace, point, { folder, isCopied, hint }, call);
    if (lacking.length > 0)
      call.onWarning?.(
        `the probes ask a copy that lacks ${plural(lacking.length, "entry")} of the save point, or a part of their metadata: ${listedNames(lacking.map(({ path }) => printablePath(path)))}`,
      );
    failpoint("backup.probing");
    const ran = await runProbes(probe, folder, call.signal);
    for (const { record, failure } of ran)
      if (failure !== null) call.onWarning?.(`the probe ${record.command} ${failure}`);
    return ran;
  } finally {
    removeAll(work);
  }
}

function publicProbe({ record, failure }: RanProbe): ProbeResult {
  const { command, status, output_b64: output } = record;
  return { command, status, output: Buffer.from(output, "base64").toString("utf8"), failure };
}
