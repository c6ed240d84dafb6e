import { COMES_HOME, forkOf, isBeside } from "../../change/forks.ts";
import { planTo } from "../../change/restore-plan.ts";
import { goingBack, type Wanted } from "../../change/restore.ts";
import type { RestorePlan, RestoreResult } from "../../contract/points.ts";
import { advice, CairnError, call, option } from "../../errors.ts";
import { plural } from "../../formats/sizes.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import { type OutsidePoint, takenOver } from "../../workspace/open/siblings.ts";
import type { Workspace, WorkspaceCall } from "../../workspace/open/workspace.ts";
import type { FoundWorkspace } from "../../workspace/place/find-workspace.ts";
import type { Point } from "../../workspace/points/point-files.ts";
import { Absolute, Relative } from "../../workspace/rules/wanted.ts";
import { lookBesideHead, recoverIfIdle } from "../../workspace/save/look.ts";
import { receiveOutside } from "../../workspace/save/outside.ts";
import { siblingById, takeOverPoint } from "../../workspace/save/receive.ts";
import { presentOf } from "../../workspace/save/save.ts";
import type { AdoptForkOptions } from "./adopt-fork.ts";

/**
 * Brings a fork's present home, which is saved in the fork first. `fork`: the fork's name or folder. Throws `refused` if
 * the folder changed since the fork was made, unless `merge` or `over` says what becomes of these changes.
 */
export async function adoptFork(workspace: Workspace, fork: string, options: AdoptForkOptions): Promise<RestoreResult> {
  const { found, point } = await savedFork(workspace, fork, options, options.plan !== undefined);
  if (!isBeside(workspace, found)) await receiveOutside(workspace, outsideOf(found, point), options);
  const { merge: _merge, over: _over, throughSqlite = false, ...own } = options;
  return goingBack(workspace, { ...own, throughSqlite }, "restore", async () => {
    const base = await baseOf(workspace, found, options);
    return comingHome({ found, target: await takenOverPoint(workspace, found, point), base }, options);
  });
}

/** Plans {@link adoptFork}. Saves the fork's present in the fork; changes nothing in this workspace. */
export async function planAdoptFork(
  workspace: Workspace,
  fork: string,
  options: AdoptForkOptions,
): Promise<RestorePlan> {
  await recoverIfIdle(workspace, options);
  const { found, point } = await savedFork(workspace, fork, options, true);
  const base = await baseOf(workspace, found, options);
  const target = siblingById(workspace, point.descriptor.save_point_id);
  return planTo(workspace, options, comingHome({ found, target, base }, options));
}

/** Saves the fork's present in the fork. Throws `refused` if a plan is wanted of a fork that has its own store. */
async function savedFork(
  workspace: Workspace,
  fork: string,
  { cause: _cause, plan: _plan, ...options }: AdoptForkOptions,
  isPlanned: boolean,
): Promise<{ found: FoundWorkspace; point: Point }> {
  if (options.merge && options.over) throw new CairnError("usage", "give merge or over, not both");
  const found = forkOf(workspace, fork);
  if (isPlanned && !isBeside(workspace, found))
    throw new CairnError(
      "refused",
      `${printablePath(found.folder)} has a store of its own: its content would have to be received before it can be planned`,
      { hint: advice`adopt it without a plan; ${call("undo")} takes that back` },
    );
  return { found, point: await presentOf(workspace, found, { ...options, message: COMES_HOME }) };
}

/** Returns the change of the folder. `target`: the fork's present; `base`: null to make the folder equal to it. */
function comingHome(
  { found, target, base }: { found: FoundWorkspace; target: Point; base: Point | null },
  { merge, throughSqlite = false }: AdoptForkOptions,
): Wanted {
  const wanted = { target, origin: found.workspace.id, kind: "adopt" } as const;
  if (base === null || !merge) return { ...wanted, change: new Absolute({}) };
  const changes = [{ found: target, left: base }];
  return { ...wanted, change: new Relative({ changes, merges: true, throughSqlite }) };
}

/**
 * Returns the point that the fork was made from; null with `over`. Throws `not_found` if it is gone, and `refused` if the
 * folder changed since and nothing says what becomes of the changes: no option, and no plan, which lists them.
 */
async function baseOf(
  workspace: Workspace,
  { folder, workspace: { origin } }: FoundWorkspace,
  { merge, over, plan, ...call }: AdoptForkOptions,
): Promise<Point | null> {
  if (over) return null;
  const isOwn = origin?.workspace_id === workspace.found.workspace.id;
  const base = isOwn ? workspace.byId(origin!.save_point_id) : null;
  if (base !== null) {
    if (!merge && plan === undefined) await requireUnchanged(workspace, base, call);
    return base;
  }
  const shown = printablePath(folder);
  throw new CairnError(
    isOwn ? "not_found" : "refused",
    isOwn
      ? `the save point from which ${shown} was made is gone, so nobody can tell what changed since`
      : `${shown} is no fork of this workspace, so everything here would become as it is there`,
    { hint: advice`to make this folder equal to the fork in any case, add ${option("over")}` },
  );
}

/** Throws `refused` if the folder differs from the point that the fork was made from. */
async function requireUnchanged(workspace: Workspace, base: Point, own: WorkspaceCall): Promise<void> {
  const { changes } = await lookBesideHead(workspace, { ...own, head: base });
  const count = changes.added + changes.modified + changes.removed;
  if (count === 0) return;
  const id = base.descriptor.save_point_id.slice(0, 8);
  throw new CairnError(
    "refused",
    `this folder changed since the fork was made: ${plural(count, "entry")} would be lost; nothing was changed`,
    {
      hint: advice`${call(`diff ${id}`, "diff", base.descriptor.save_point_id)} lists them; ${option("merge")} brings the fork's changes home beside them, and ${option("over")} takes them away`,
      details: { changes, base: base.descriptor.save_point_id },
    },
  );
}

function outsideOf({ folder }: FoundWorkspace, { descriptor }: Point): OutsidePoint {
  return { folder: folder.toString("utf8"), id: descriptor.save_point_id };
}

async function takenOverPoint(workspace: Workspace, found: FoundWorkspace, point: Point): Promise<Point> {
  if (isBeside(workspace, found))
    return takeOverPoint(workspace, siblingById(workspace, point.descriptor.save_point_id));
  const own = takenOver(workspace.points, point.descriptor.save_point_id);
  if (own === null) throw new CairnError("not_found", "the point that was received of the fork is gone");
  return own;
}
