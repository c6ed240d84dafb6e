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
import { encodeChecks } from "../../formats/records/checks.ts";
import { type RanProbe, readChecks, runProbe } from "../open/checks.ts";
import { callOf } from "../open/open-repository.ts";
import type { Session } from "../open/session.ts";
import { pointOf } from "../open/snapshots.ts";
import type { ListedSnapshot } from "../../repository/repository.ts";

/** Returns the file of a snapshot's checks, and the answers in it. Runs probes only if the point's last snapshot lacks their answers. */
export async function askPoint(
  {
    session,
    workspace,
    point,
    options,
  }: { session: Session; workspace: Workspace; point: Point; options: CreateBackupOptions },
  parent: ListedSnapshot | null,
): Promise<{ checks: Uint8Array; probes: ProbeResult[] }> {
  const probe = new Set(options.probe);
  const { rows = [], save_point_id: id } = point.descriptor;
  const isSame = parent !== null && pointOf(parent.snapshot) === id;
  const before = isSame ? await readChecks(session.reader, parent, () => undefined) : null;
  const known = before?.probes ?? [];
  const isAnswered = isDeepStrictEqual(new Set(known.map(({ command }) => command)), probe);
  const answers =
    isAnswered && known.every(({ status }) => status === 0)
      ? known.map((record) => ({ record, failure: null }))
      : await probePoint(workspace, point, { ...callOf(options), probe });
  const probes = answers.map(({ record: { command, status, output_b64 }, failure }) => {
    const output = Buffer.from(output_b64, "base64").toString("utf8");
    return { command, status, output, failure };
  });
  return { checks: encodeChecks({ rows, probes: answers.map(({ record }) => record) }), probes };
}

/**
 * Runs probes on a temporary copy of a sealed point in the control directory. After a kill the next command that takes
 * the workspace's lock removes the copy.
 */
async function probePoint(
  workspace: Workspace,
  point: Point,
  { probe, ...call }: WorkspaceCall & { probe: ReadonlySet<string> },
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
    const ran: RanProbe[] = [];
    for (const command of probe) {
      const one = await runProbe(command, folder, call.signal);
      ran.push(one);
      if (one.failure !== null) call.onWarning?.(`the probe ${command} ${one.failure}`);
    }
    return ran;
  } finally {
    removeAll(work);
  }
}
