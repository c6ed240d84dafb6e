import { displayPath } from "../../fs/safe-path.ts";
import type { RepairedSnapshot, RepairSnapshotsOptions, RepairSnapshotsResult } from "../contract.ts";
import type { RepositoryAccess } from "./repository-access.ts";
import type { RewrittenSnapshot } from "./snapshot-rewriter.ts";
import { rewriteSnapshots } from "./rewrite-snapshots.ts";

/** Makes new snapshots of those that lack something, without what is lost; what that is, is said of each. See `SnapshotRewriter`. */
export async function repairSnapshots(
  access: RepositoryAccess,
  options: RepairSnapshotsOptions,
): Promise<RepairSnapshotsResult> {
  const started = Date.now();
  const { plan = false, forget = false } = options;
  const done = await rewriteSnapshots(access, options, {
    rewriting: { choice: options, tag: "repaired", takesOut: null },
    isPlan: plan,
    forget,
  });
  const isForgotten = forget && !plan;
  return {
    ...access.info,
    plan,
    intact: done.others,
    repaired: done.rewritten.map((each) => repaired(each, isForgotten)),
    unreadable: done.unreadable,
    duration_ms: Date.now() - started,
  };
}

function repaired({ listed, lost, newId }: RewrittenSnapshot, forgotten: boolean): RepairedSnapshot {
  return {
    snapshot_id: listed.id,
    created_at: listed.snapshot.time,
    new_id: newId,
    forgotten,
    lost: lost.map(({ path, kind, detail }) => ({ ...displayPath(path), kind, detail })),
  };
}
