import { checkRetention } from "../workspace/keep/retention.ts";
import { MAX_KEPT_TREES, NO_POLICY, type PolicyFile, retentionOf, storedRetention } from "../formats/records/policy.ts";
import { formatBytes } from "../formats/sizes.ts";
import { runPlan } from "../workspace/keep/cleanup.ts";
import { isUnfreed } from "../workspace/keep/unfreed.ts";
import { type CleanupFacts, keptContent, planCleanup } from "../workspace/keep/cleanup-plan.ts";
import { heldBytes } from "../workspace/store/held-bytes.ts";
import type { ControlPaths } from "../workspace/place/control-layout.ts";
import { readPolicy, writePolicy } from "../workspace/place/control-directory.ts";
import { ensureSealed, sealPoints } from "../workspace/save/seal.ts";
import { needsRecovery, recoverWorkspace } from "../workspace/open/recovery.ts";
import { makingRoom } from "../workspace/open/temporaries.ts";
import { type Workspace } from "../workspace/open/workspace.ts";
import type { SavePointId } from "../ids.ts";
import type { CallOptions } from "../contract/words.ts";
import type {
  CleanupOptions,
  CleanupPlan,
  CleanupResult,
  PolicyEdit,
  PolicyResult,
  Retention,
  RunCleanupOptions,
} from "../contract/looking.ts";
import { CairnError, throwIfAborted } from "../errors.ts";
import { acquireLock } from "../fs/lock.ts";
import { requireNotOthers } from "../workspace/place/owners.ts";
import { lockingOf } from "../workspace/place/registry.ts";

/** Plans a cleanup, with the reason for each point. Removes and stores nothing. */
export async function previewCleanup(workspace: Workspace, options: CleanupOptions): Promise<CleanupPlan> {
  const { control } = workspace.found;
  const rules = await rulesFor(workspace, options);
  if (needsRecovery(workspace)) {
    using _lock = await makingRoom(control, async () => workspace.lock("cleanup plan", options));
    await makingRoom(control, async () => recoverWorkspace(workspace, options));
  }
  const facts = await workspace.engine.reading(async () => planCleanup(workspace, { ...options, rules }), options);
  return { ...publicPlan(facts), removals_pending: isUnfreed(control) };
}

/** Returns the given rules, else the policy's. Seals all points if a rule limits sizes, which only sealed points have. */
async function rulesFor(workspace: Workspace, options: CleanupOptions): Promise<Retention> {
  const { only, retention = only === undefined ? policyOf(workspace.found.control) : {} } = options;
  checkRetention(retention);
  if (only === undefined && retention.maxBytes !== undefined) await ensureSealed(workspace, options);
  return retention;
}

/** Returns the rules set for a control directory; without rules only undo points are candidates. */
function policyOf(control: ControlPaths): Retention {
  const { retention } = readPolicy(control);
  return retention === null ? {} : retentionOf(retention);
}

function publicPlan({ id, bytes, decisions, protectedByHistory }: CleanupFacts): Omit<CleanupPlan, "removals_pending"> {
  return {
    id,
    plan_id: id,
    created_at: new Date().toISOString(),
    protected_save_points: decisions.filter(({ keep }) => keep).map(({ id: point }) => point as SavePointId),
    protected_by_history: protectedByHistory,
    candidate_count: decisions.length,
    reclaimable_save_points: decisions.filter(({ keep }) => !keep).map(({ id: point }) => point as SavePointId),
    reclaimable_bytes_estimate: bytes,
    reasons: decisions.map(({ id: point, keep, reasons }) => ({ save_point_id: point as SavePointId, keep, reasons })),
  };
}

/** Removes the points that no rule keeps, or the named points. Throws `stale_plan` if the caller was shown another plan. */
export async function runCleanup(workspace: Workspace, options: RunCleanupOptions): Promise<CleanupResult> {
  const { control } = workspace.found;
  const rules = await rulesFor(workspace, options);
  using _lock = await makingRoom(control, async () => workspace.lock("cleanup", options));
  await makingRoom(control, async () => recoverWorkspace(workspace, options));
  const { plan } = await planCleanup(workspace, { ...options, rules });
  const { removed, bytesFreed, complete, stillHeld } = await runPlan(workspace, plan, { ...options, seal: sealPoints });
  if (!plan.thorough && rules.maxBytes !== undefined) await tellOfSize(workspace, rules.maxBytes, options);
  return { removed, bytes_freed: bytesFreed, complete, still_held: stillHeld };
}

/** Warns if protected points need more than the requested size. An error here does not fail the cleanup. */
async function tellOfSize({ found, engine }: Workspace, maxBytes: number, options: CallOptions): Promise<void> {
  const others = keptContent(found.control, new Set());
  const [bytes = 0] = await engine
    .store(options)
    .then(async (store) => heldBytes(store, [], { others, signal: options.signal }))
    .catch(() => []);
  if (bytes <= maxBytes) return;
  options.onWarning?.(
    `the store will still have ${formatBytes(bytes)}, more than the given ${formatBytes(maxBytes)}: a limit on size never removes points of the last day, undo points, or points that a tag, a pin or a use protects; --plan lists the reason of each`,
  );
}

/** Returns the policy: the rules for cleanups that are given no rules, and for saves that reach the quota. */
export function policy(control: ControlPaths): PolicyResult {
  return publicPolicy(readPolicy(control));
}

/** Changes the settings that the edit names; null removes a setting. Throws `usage`, `busy`. */
export async function setPolicy(control: ControlPaths, edit: PolicyEdit, options: CallOptions): Promise<PolicyResult> {
  throwIfAborted(options.signal);
  const changes: Partial<PolicyFile> = {};
  const { retention = null } = edit;
  if (retention !== null) checkRetention(retention);
  if (edit.retention !== undefined) changes.retention = retention === null ? null : storedRetention(retention);
  if (edit.quotaBytes !== undefined) changes.quota_bytes = checkedQuota(edit.quotaBytes);
  if (edit.keptTrees !== undefined) changes.kept_trees = checkedTrees(edit.keptTrees);
  requireNotOthers(control);
  using _lock = await acquireLock(control.lock, lockingOf("policy", options));
  const changed = { ...presentOrNothing(control, edit), ...changes };
  writePolicy(control, changed);
  return publicPolicy(changed);
}

/** Returns the present policy. A damaged policy is replaced by an edit that sets everything. */
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

/** Throws `usage` if `bytes` is not a number of bytes. */
export function checkedQuota(bytes: number | null): number | null {
  if (bytes === null || (Number.isSafeInteger(bytes) && bytes >= 0)) return bytes;
  throw new CairnError("usage", `not a quota in bytes: ${bytes}`);
}

function checkedTrees(count: number | null): number | null {
  if (count === null || (Number.isSafeInteger(count) && count >= 0 && count <= MAX_KEPT_TREES)) return count;
  throw new CairnError("usage", `not a number of clones to keep, from 0 to ${MAX_KEPT_TREES}: ${count}`);
}

function publicPolicy(file: PolicyFile): PolicyResult {
  const { retention, quota_bytes, kept_trees } = file;
  return { retention: retention === null ? null : retentionOf(retention), quota_bytes, kept_trees };
}
