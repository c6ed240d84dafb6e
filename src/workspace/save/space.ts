import fs from "node:fs";
import { CairnError, toCairnError } from "../../errors.ts";
import type { Workspace, WorkspaceCall } from "../open/workspace.ts";
import { NO_POLICY, type PolicyFile, retentionOf, type RetentionRules } from "../../formats/records/policy.ts";
import { removeDeadWorkDirectories } from "../../fs/work-directory.ts";
import { freeSpace } from "../../fs/linux/mounts.ts";
import { checkSpace, quotaReached } from "../place/guards.ts";
import type { GuardName } from "../../contract/words.ts";
import { readPolicy } from "../place/control-directory.ts";
import { planCleanup } from "../keep/cleanup-plan.ts";
import { runPlan } from "../keep/cleanup.ts";
import { sealPoints } from "./seal.ts";
import { whatMayGo } from "../place/room.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import { plural } from "../../formats/sizes.ts";

/** Checks the free space before a save, and frees space if a policy allows that. */

export interface SpaceGuard extends WorkspaceCall {
  allow?: readonly GuardName[] | undefined;
  /** The save stores the whole folder, and none of it is stored yet. */
  first: boolean;
}

/**
 * Checks the free space of the file system and the quota before a save. At the quota it removes points that a set
 * policy does not keep and that are over a day old. Returns the policy. The caller holds the workspace's lock. Throws
 * `no_space`.
 */
export async function guardSpace(workspace: Workspace, guard: SpaceGuard): Promise<PolicyFile> {
  const { root } = workspace.found.control;
  const policy = policyOf(workspace, guard);
  const { retention, quota_bytes: quota } = policy;
  const { freeBytes, usedBytes } = freeSpace(root);
  const estimate = guard.first ? estimateBytes(workspace.root, Math.min(freeBytes, quota ?? Infinity)) : 0;
  try {
    checkSpace(root, estimate, { allow: guard.allow });
  } catch {
    // The packs of killed saves use space, and may be of little use to this save.
    removeDeadWorkDirectories(workspace.found.control.temporary);
    checkSpace(root, estimate, { allow: guard.allow });
  }
  // The store is no larger than the used space of its file system, so its size need not be read.
  if (quota === null || usedBytes + estimate <= quota) return policy;
  const addedBytes = guard.allow?.includes("space") === true ? 0 : estimate;
  const isWithin = async (): Promise<boolean> => (await storeBytes(workspace, guard)) + addedBytes <= quota;
  if (await isWithin()) return policy;
  if (retention !== null && (await makeRoom(workspace, retentionOf(retention), guard)) > 0 && (await isWithin()))
    return policy;
  throw await quotaError(workspace, guard, { quota, addedBytes });
}

async function quotaError(
  workspace: Workspace,
  call: WorkspaceCall,
  use: { quota: number; addedBytes: number | null },
): Promise<CairnError> {
  const { found, points } = workspace;
  const usedBytes = await storeBytes(workspace, call);
  const hasRules = policyOf(workspace, { ...call, onWarning: undefined }).retention !== null;
  return quotaReached(found.control.root, { ...use, usedBytes, points: points.committed().length, hasRules });
}

/**
 * Runs `save` with the bytes that the quota leaves, null without a quota. A save that needs more stops and stores
 * nothing; then a policy frees space once and the save runs again. Throws `no_space`.
 */
export async function withinQuota<T>(
  workspace: Workspace,
  guard: SpaceGuard,
  save: (mostBytes: number | null) => Promise<T>,
): Promise<T> {
  const { retention, quota_bytes: quota } = await guardSpace(workspace, guard);
  for (let isLast = retention === null; ; isLast = true) {
    try {
      return await save(quota === null ? null : Math.max(0, quota - (await storeBytes(workspace, guard))));
    } catch (error) {
      if (quota === null || toCairnError(error).details?.["most_bytes"] === undefined) throw error;
      if (!isLast && (await makeRoom(workspace, retentionOf(retention!), guard)) > 0) continue;
      throw await quotaError(workspace, guard, { quota, addedBytes: null });
    }
  }
}

/** Warns at a first save if its points lie in a place that may be removed as a whole. */
export function warnOfPlace({ found }: Workspace, { onWarning }: WorkspaceCall): void {
  const { root } = found.control;
  const meaning = whatMayGo(root, found.folder);
  if (meaning !== null) onWarning?.(`the save points lie in ${printablePath(root)}, ${meaning}`);
}

/** Returns the bytes in the store. Holding a folder needs no store, so a store that cannot be opened counts 0. */
async function storeBytes({ engine }: Workspace, { onWarning }: WorkspaceCall): Promise<number> {
  // The save opens the store in any case.
  if (engine.holder === null) return (await engine.storeFacts()).bytes;
  try {
    return await engine.storeBytes();
  } catch (error) {
    const problem = toCairnError(error);
    if (problem.code === "interrupted") throw problem;
    onWarning?.(`the quota was not checked: the size of the store could not be read: ${problem.message}`);
    return 0;
  }
}

/** Returns the policy. A policy that cannot be read removes nothing and prevents no save. */
function policyOf(workspace: Workspace, call: WorkspaceCall): PolicyFile {
  try {
    return readPolicy(workspace.found.control);
  } catch (error) {
    if (!(error instanceof CairnError)) throw error;
    call.onWarning?.(`the policy cannot be read, so this save does not follow it: ${error.message}`);
    return NO_POLICY;
  }
}

async function makeRoom(workspace: Workspace, rules: RetentionRules, call: WorkspaceCall): Promise<number> {
  const { plan } = await planCleanup(workspace, { ...call, rules, keepYoung: true });
  if (plan.drop.length === 0) return 0;
  const { removed } = await runPlan(workspace, plan, { ...call, seal: sealPoints });
  call.onWarning?.(
    `the quota was reached, so ${plural(removed.length, "point")} that the policy does not keep ${removed.length === 1 ? "was" : "were"} removed`,
  );
  return removed.length;
}

/** The most milliseconds that an estimate adds to a first save. */
const ESTIMATE_MS = 60;

/**
 * Estimates how many bytes a folder holds: 0 if its whole file system holds at most `most`. Else adds up disk usage
 * from the top until the sum exceeds `most` or time is over. Holes are not stored, so disk usage counts.
 */
export function estimateBytes(folder: Buffer, most: number): number {
  if (freeSpace(folder).usedBytes <= most) return 0;
  const until = performance.now() + ESTIMATE_MS;
  const queue = [folder];
  const device = fs.statSync(folder).dev;
  let bytes = 0;
  for (const directory of queue) {
    for (const name of rawNamesIn(directory)) {
      if (bytes > most || performance.now() > until) return Math.ceil(bytes);
      const path = Buffer.concat([directory, SLASH, name]);
      const facts = factsOf(path);
      if (facts === undefined || facts.dev !== device) continue;
      if (facts.isDirectory()) queue.push(path);
      else if (facts.isFile()) bytes += Math.min(facts.size, facts.blocks * 512) / facts.nlink;
    }
  }
  return Math.ceil(bytes);
}

/** Returns undefined for an entry that cannot be read or whose path is too long: the scan reports it. */
function factsOf(path: Buffer): fs.Stats | undefined {
  try {
    return fs.lstatSync(path, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}

/** Returns no names if a directory cannot be listed: the scan reports it. */
function rawNamesIn(directory: Buffer): Buffer[] {
  try {
    return fs.readdirSync(directory, { encoding: "buffer" });
  } catch {
    return [];
  }
}

const SLASH = Buffer.from("/");
