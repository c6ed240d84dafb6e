import { checkRetention } from "../workspace/retention.ts";
import { CairnError, throwIfAborted } from "../errors.ts";
import { MAX_KEPT_TREES, NO_POLICY, type PolicyFile, retentionOf, storedRetention } from "../formats/policy.ts";
import { acquireLock } from "../fs/lock.ts";
import type { ControlPaths } from "../workspace/control-layout.ts";
import { warnRoot } from "../workspace/owners.ts";
import { readPolicy, writePolicy } from "../workspace/records.ts";
import { lockingOf } from "../workspace/workspace.ts";
import type { CallOptions, PolicyEdit, PolicyResult } from "../contract/index.ts";

/** What a cleanup without rules of its own goes by, and a save that meets the quota. */
export function policy(control: ControlPaths): PolicyResult {
  return publicPolicy(readPolicy(control));
}

/** Changes what the edit names and keeps the rest; null takes a setting away. Throws `usage`, `busy`. */
export async function setPolicy(control: ControlPaths, edit: PolicyEdit, options: CallOptions): Promise<PolicyResult> {
  throwIfAborted(options.signal);
  const changes: Partial<PolicyFile> = {};
  const { retention = null } = edit;
  if (retention !== null) checkRetention(retention);
  if (edit.retention !== undefined) changes.retention = retention === null ? null : storedRetention(retention);
  if (edit.quotaBytes !== undefined) changes.quota_bytes = checkedQuota(edit.quotaBytes);
  if (edit.keptTrees !== undefined) changes.kept_trees = checkedTrees(edit.keptTrees);
  warnRoot(control, options.onWarning);
  using _lock = await acquireLock(control.lock, lockingOf("policy", options));
  const changed = { ...presentOrNothing(control, edit), ...changes };
  writePolicy(control, changed);
  return publicPolicy(changed);
}

/** A damaged policy is replaced by an edit that says everything. */
function presentOrNothing(control: ControlPaths, edit: PolicyEdit): PolicyFile {
  try {
    return readPolicy(control);
  } catch (error) {
    const isWhole = [edit.retention, edit.quotaBytes, edit.keptTrees].every((each) => each !== undefined);
    const replaces = edit.retention === null || isWhole;
    if (!replaces || (error as CairnError).code !== "damaged") throw error;
    return NO_POLICY;
  }
}

/** Throws `usage` for what is no number of bytes. */
export function checkedQuota(bytes: number | null): number | null {
  if (bytes === null || (Number.isSafeInteger(bytes) && bytes >= 0)) return bytes;
  throw new CairnError("usage", `not a quota in bytes: ${bytes}`);
}

function checkedTrees(count: number | null): number | null {
  if (count === null || (Number.isSafeInteger(count) && count >= 0 && count <= MAX_KEPT_TREES)) return count;
  throw new CairnError("usage", `not a number of trees to keep, from 0 to ${MAX_KEPT_TREES}: ${count}`);
}

function publicPolicy(file: PolicyFile): PolicyResult {
  const { retention, quota_bytes, kept_trees } = file;
  return { retention: retention === null ? null : retentionOf(retention), quota_bytes, kept_trees };
}
