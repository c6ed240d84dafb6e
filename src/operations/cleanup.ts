import { checkRetention } from "../workspace/retention.ts";
import type { CleanupPlanFile } from "../formats/cleanup.ts";
import { retentionOf } from "../formats/policy.ts";
import { formatBytes } from "../formats/sizes.ts";
import { isUnfreed, runPlan } from "../workspace/cleanup.ts";
import { type CleanupFacts, keptContent, loadPlan, planCleanup, storePlan } from "../workspace/cleanup-plan.ts";
import type { ControlPaths } from "../workspace/control-layout.ts";
import { readPolicy } from "../workspace/records.ts";
import { recoverWorkspace } from "../workspace/recovery.ts";
import { makingRoom } from "../workspace/temporaries.ts";
import type { Workspace } from "../workspace/workspace.ts";
import type { SavePointId } from "../ids.ts";
import type { CallOptions, CleanupOptions, CleanupPlan, CleanupResult, Retention } from "../contract/index.ts";

/** Says what a cleanup would remove and why, and keeps that to be run. */
export async function previewCleanup(workspace: Workspace, options: CleanupOptions): Promise<CleanupPlan> {
  const { control } = workspace.found;
  using _lock = await makingRoom(control, async () => workspace.lock("cleanup plan", options));
  await makingRoom(control, async () => recoverWorkspace(workspace, options));
  const { retention = policyOf(control) } = options;
  checkRetention(retention);
  const only = options.only?.map((target) => workspace.resolve(target)) ?? null;
  const facts = await planCleanup(workspace, {
    ...options,
    only,
    rules: retention,
  });
  await makingRoom(control, () => storePlan(control, facts.plan));
  return { ...publicPlan(facts), removals_pending: isUnfreed(control) };
}

/** The rules that are set for a control directory; without any only undo points are candidates. */
function policyOf(control: ControlPaths): Retention {
  const { retention } = readPolicy(control);
  return retention === null ? {} : retentionOf(retention);
}

function publicPlan({ plan, decisions, protectedByHistory }: CleanupFacts): Omit<CleanupPlan, "removals_pending"> {
  return {
    plan_id: plan.plan_id,
    created_at: plan.created_at,
    protected_save_points: decisions.filter(({ keep }) => keep).map(({ id }) => id as SavePointId),
    protected_by_history: protectedByHistory,
    candidate_count: decisions.length,
    reclaimable_save_points: decisions.filter(({ keep }) => !keep).map(({ id }) => id as SavePointId),
    reclaimable_bytes_estimate: plan.bytes,
    reasons: decisions.map(({ id, keep, reasons }) => ({ save_point_id: id as SavePointId, keep, reasons })),
  };
}

/** The plan behind an id; throws `not_found` when it ran already. */
export function planOf(control: ControlPaths, planId: string): CleanupPlanFile {
  return loadPlan(control, planId);
}

/** Removes exactly what a plan lists. Throws `stale_plan`, `not_found` for a plan that ran already. */
export async function runCleanup(workspace: Workspace, planId: string, options: CallOptions): Promise<CleanupResult> {
  const { control } = workspace.found;
  using _lock = await makingRoom(control, async () => workspace.lock("cleanup", options));
  await makingRoom(control, async () => recoverWorkspace(workspace, options));
  const plan = loadPlan(control, planId);
  const { removed, bytesFreed, complete } = await runPlan(workspace, plan, options);
  if (plan.rules?.maxBytes !== undefined) await tellOfSize(workspace, plan.rules.maxBytes, options);
  return { removed, bytes_freed: bytesFreed, complete };
}

/** Who asks for a size is told where what may not go is more than that. Nothing that fails here undoes the cleanup. */
async function tellOfSize({ found, engine }: Workspace, maxBytes: number, options: CallOptions): Promise<void> {
  const [bytes = 0] = await engine.heldBytes([], keptContent(found.control, new Set()), options).catch(() => []);
  if (bytes <= maxBytes) return;
  options.onWarning?.(
    `what stays in the store takes ${formatBytes(bytes)}, more than the ${formatBytes(maxBytes)} that were asked for: points of the last day, undo points, and what a tag, a pin or its use protects are not dropped for a size; with --plan each says why it stays`,
  );
}
