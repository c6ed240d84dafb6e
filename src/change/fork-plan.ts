import fs from "node:fs";
import { isDeepStrictEqual } from "node:util";
import type { ScanResult } from "../archive/scan/scan.ts";
import type { ForkRemovalPlan, RemoveForkOptions } from "../contract/points.ts";
import { hex } from "../formats/bytes.ts";
import { planIdOf, requirePlan } from "../crypto/plan-id.ts";
import { plural } from "../formats/sizes.ts";
import { listedNames, quotedPath } from "../fs/paths/safe-path.ts";
import {
  openFork,
  requireAllIn,
  requireAllSaved,
  requireDisk,
  requireNotGoing,
  requireNothingKept,
  requireRemovable,
  requireUnused,
  rulesOf,
} from "../workspace/care/fork-checks.ts";
import { pointsThatGo } from "../workspace/care/going.ts";
import { Workspace } from "../workspace/open/workspace.ts";
import { workspaceRef } from "../workspace/place/find-workspace.ts";
import { recoverIfIdle } from "../workspace/save/look.ts";
import { scanRequest } from "../workspace/save/scan-request.ts";
import { sealedPoint } from "../workspace/save/seal.ts";
import { diffToScan } from "../look/diff.ts";
import { ownForkOf } from "./forks.ts";

/** The plan of a fork's removal. */

/** A fork as its plan showed it. */
export interface ShownFork {
  /** state digest of the folder; null if the folder is missing */
  state: string | null;
  /** the facts of its points */
  points: readonly unknown[][];
}

/** Looks at a fork as its removal does, and returns the plan of the removal. Changes nothing. */
export async function planRemoveFork(
  workspace: Workspace,
  fork: string,
  call: RemoveForkOptions,
): Promise<ForkRemovalPlan> {
  const found = ownForkOf(workspace, fork);
  requireNotGoing(found);
  await using other = new Workspace(found, workspace.parts, workspace.removals);
  await recoverIfIdle(other, call);
  if (isMissing(other)) requireDisk(found);
  else {
    fs.closeSync(openFork(found));
    await requireGoing(other, call);
  }
  return (await planOf(other, call)).plan;
}

function isMissing({ found }: Workspace): boolean {
  return fs.lstatSync(found.folder, { throwIfNoEntry: false }) === undefined;
}

/** Throws `refused` or `busy` if a fork's folder cannot be removed, or a point would not have all of it. */
export async function requireGoing(other: Workspace, call: RemoveForkOptions): Promise<void> {
  const { found } = other;
  requireRemovable(found);
  requireUnused(found.folder, found.folder);
  await requireAllSaved(other, found.folder, call);
  requireNothingKept(found.folder);
}

async function planOf(other: Workspace, call: RemoveForkOptions): Promise<ShownFork & { plan: ForkRemovalPlan }> {
  const { found } = other;
  const scan = isMissing(other) ? null : await lookAt(other, call);
  const last = other.byId(other.state().head) ?? other.points.latest();
  const newest = last && (await sealedPoint(other, last.descriptor.save_point_id, call));
  const { ids, facts } = pointsThatGo(other);
  const state = scan && hex(scan.state);
  const plan: ForkRemovalPlan = {
    id: planIdOf(["remove-fork", found.workspace.id, rulesOf(call) !== null, state, ...facts]),
    workspace: workspaceRef(found),
    save_point_ids: ids,
    entries: scan && newest && (await diffToScan(other, newest, scan, call)),
  };
  return { plan, state, points: facts };
}

async function lookAt(other: Workspace, call: RemoveForkOptions): Promise<ScanResult> {
  const request = scanRequest(other, {}, { rules: rulesOf(call) });
  const { scan } = await other.engine.look(request, { ...call, tree: null });
  requireAllIn(scan, other.found.folder, call);
  return scan;
}

/** Returns the state digest of a fork's folder, as in {@link ShownFork}. */
export async function stateOf(other: Workspace, call: RemoveForkOptions): Promise<string> {
  return hex((await lookAt(other, call)).state);
}

/** Throws `stale_plan` if the caller was shown another plan than that of the fork as it is now. Null without a plan. */
export async function requireShown(other: Workspace, call: RemoveForkOptions): Promise<ShownFork | null> {
  if (call.plan === undefined) return null;
  const { plan, ...now } = await planOf(other, call);
  requirePlan(call.plan, plan.id, () => inWords(plan, now.state === null));
  return now;
}

function inWords({ entries, save_point_ids: points }: ForkRemovalPlan, isGone: boolean): string {
  const names = entries === null || entries.length === 0 ? "" : ` (${listedNames(entries.map(nameOf))})`;
  const saved = entries === null ? "the whole folder" : `${plural(entries.length, "changed entry")}${names}`;
  const newest = points[0] === undefined ? "" : `, the newest ${points[0].slice(0, 8)}`;
  const first = isGone ? "forget a missing folder" : `save ${saved}`;
  return `it would ${first} and remove ${plural(points.length, "point")}${newest}, now`;
}

function nameOf({ path }: { path: string }): string {
  return quotedPath(Buffer.from(path));
}

/** Tells if a fork has the points that were shown, apart from `saved`, which the removal may have made. */
export function hasSamePoints(other: Workspace, { points }: ShownFork, saved: string): boolean {
  const isShown = points.some(([id]) => id === saved);
  const now = pointsThatGo(other).facts.filter(([id]) => isShown || id !== saved);
  return isDeepStrictEqual(now, points);
}
