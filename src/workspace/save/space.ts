import fs from "node:fs";
import { CairnError, toCairnError } from "../../errors.ts";
import type { Workspace, WorkspaceCall } from "../open/workspace.ts";
import { NO_POLICY, retentionOf, type RetentionRules } from "../../formats/records/policy.ts";
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

/** Looks for room before a save, and makes it where a policy says how. */

export interface SpaceGuard extends WorkspaceCall {
  allow?: readonly GuardName[] | undefined;
  /** The save stores what the folder holds, and nothing of it is stored yet. */
  first: boolean;
}

/**
 * Before the first byte of a save: room on the file system, and in the quota if somebody set one. At the quota only what a
 * policy that somebody set drops anyway, and what is over a day old, makes room. For the holder of the workspace's lock.
 * Throws `no_space`.
 */
export async function guardSpace(workspace: Workspace, guard: SpaceGuard): Promise<void> {
  const { root } = workspace.found.control;
  const { retention, quota_bytes: quota } = policyOf(workspace, guard);
  const { freeBytes, usedBytes } = freeSpace(root);
  const estimate = guard.first ? estimateBytes(workspace.root, Math.min(freeBytes, quota ?? Infinity)) : 0;
  try {
    checkSpace(root, estimate, { allow: guard.allow });
  } catch {
    // The packs of killed saves take room, and may be of little use to this save.
    removeDeadWorkDirectories(workspace.found.control.temporary);
    checkSpace(root, estimate, { allow: guard.allow });
  }
  // The store is no larger than all that is on its file system, and need not be counted then.
  if (quota === null || usedBytes + estimate <= quota) return;
  const addedBytes = guard.allow?.includes("space") === true ? 0 : estimate;
  const isWithin = async (): Promise<boolean> => (await storeBytes(workspace, guard)) + addedBytes <= quota;
  if (await isWithin()) return;
  if (retention !== null && (await makeRoom(workspace, retentionOf(retention), guard)) > 0 && (await isWithin()))
    return;
  throw await quotaError(workspace, guard, { quota, addedBytes });
}

async function quotaError(
  workspace: Workspace,
  call: WorkspaceCall,
  use: { quota: number; addedBytes: number | null },
): Promise<CairnError> {
  const { found, points } = workspace;
  const usedBytes = await storeBytes(workspace, call);
  return quotaReached(found.control.root, { ...use, usedBytes, points: points.committed().length });
}

/**
 * Has `save` store what a folder holds: at most `mostBytes`, which is what the quota leaves, null without one. If that is too
 * little, the save is stopped and stores nothing; a policy then makes room once. Throws `no_space`.
 */
export async function withinQuota<T>(
  workspace: Workspace,
  guard: SpaceGuard,
  save: (mostBytes: number | null) => Promise<T>,
): Promise<T> {
  await guardSpace(workspace, guard);
  const { retention, quota_bytes: quota } = policyOf(workspace, guard);
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

/** Says of a first save where its points lie, when that is a place that may go as a whole. */
export function warnOfPlace({ found }: Workspace, { onWarning }: WorkspaceCall): void {
  const { root } = found.control;
  const meaning = whatMayGo(root, found.folder);
  if (meaning !== null) onWarning?.(`the save points lie in ${printablePath(root)}, ${meaning}`);
}

/** The bytes in the store. One that cannot be opened keeps nobody from holding a folder, which takes no store. */
async function storeBytes({ engine }: Workspace, { onWarning }: WorkspaceCall): Promise<number> {
  // The save opens it anyway.
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

/** A policy that cannot be read removes nothing and keeps nobody from saving. */
function policyOf(workspace: Workspace, call: WorkspaceCall): ReturnType<typeof readPolicy> {
  try {
    return readPolicy(workspace.found.control);
  } catch (error) {
    if (!(error instanceof CairnError)) throw error;
    call.onWarning?.(`the policy cannot be read, so this save does not follow it: ${error.message}`);
    return NO_POLICY;
  }
}

async function makeRoom(workspace: Workspace, rules: RetentionRules, call: WorkspaceCall): Promise<number> {
  const { plan } = await planCleanup(workspace, { ...call, rules, only: null, keepYoung: true });
  if (plan.drop.length === 0) return 0;
  const { removed } = await runPlan(workspace, plan, { ...call, seal: sealPoints });
  call.onWarning?.(
    `the quota was reached, so ${plural(removed.length, "point")} that the policy does not keep ${removed.length === 1 ? "was" : "were"} removed`,
  );
  return removed.length;
}

/** Milliseconds that a look at the folder may cost every first save. */
const ESTIMATE_MS = 60;

/**
 * At most how much a folder holds, as far as it matters: 0 when its whole file system holds no more than `most`.
 * Else its files are added up from the top until they are more, or some time is over; disk usage, since holes are not
 * stored.
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

/** Undefined for what cannot be looked at, or lies deeper than one path may be long: the scan tells of it. */
function factsOf(path: Buffer): fs.Stats | undefined {
  try {
    return fs.lstatSync(path, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}

/** None where a directory cannot be listed: the scan tells of it. */
function rawNamesIn(directory: Buffer): Buffer[] {
  try {
    return fs.readdirSync(directory, { encoding: "buffer" });
  } catch {
    return [];
  }
}

const SLASH = Buffer.from("/");
