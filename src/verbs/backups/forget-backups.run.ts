import { forgetBackups } from "../../backup/care/forget.ts";
import { pruneBackups } from "../../backup/care/prune.ts";
import type { ForgetBackupsResult, PruneBackupsResult } from "../../contract/repositories.ts";
import type { Hand } from "../../keep/hand.ts";
import { backupRepository } from "../../keep/kept-repository.ts";
import { host } from "../../keep/tasks.ts";
import { requireOwner } from "../../look/sources/operands.ts";
import { workspaceRef } from "../../workspace/place/find-workspace.ts";
import type { ForgetOwnOptions, PruneOwnOptions } from "./forget-backups.ts";

/** Removes backups of the workspace's folder on this host from the kept repository, by the given rules or the kept ones. Frees no data. */
export async function forgetOwn(
  hand: Hand,
  { retention, workspaceName: _name, ...call }: ForgetOwnOptions,
  { dryRun = false } = {},
): Promise<ForgetBackupsResult> {
  requireOwner();
  const rules = retention ?? backupRepository(hand.workspace)?.retention ?? undefined;
  const { path } = workspaceRef(hand.workspace.found);
  const own = { hosts: [host()], paths: [path], dryRun, ...(rules && { retention: rules }) };
  return hand.backups(hand.workspace, call, async (access) => forgetBackups(access, { ...call, ...own }));
}

/** Frees data of the kept repository that no snapshot needs. */
export async function pruneOwn(
  hand: Hand,
  { workspaceName: _name, ...call }: PruneOwnOptions,
  { dryRun = false } = {},
): Promise<PruneBackupsResult> {
  requireOwner();
  return hand.backups(hand.workspace, call, async (access) => pruneBackups(access, { ...call, dryRun }));
}
