import fs from "node:fs";
import { toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { latin1 } from "../../formats/bytes.ts";
import type { RemovedPathsFile } from "../../formats/records/cleanup.ts";
import type { Recovery } from "../../formats/records/control.ts";
import { rawPath, recordPath } from "../../formats/records/record.ts";
import { plural } from "../../formats/sizes.ts";
import type { Lock } from "../../fs/lock.ts";
import { isAmong } from "../../fs/path-selection.ts";
import type { Unfinished } from "../../fs/unfinished.ts";
import { stateWithout } from "../open/describe.ts";
import { type Ended, journaled } from "../open/unfinished-work.ts";
import { makingRoom, removeStatCaches, removeTemporaries } from "../open/temporaries.ts";
import { type Workspace, type WorkspaceCall, workspacesBeside } from "../open/workspace.ts";
import { listWorkspaces } from "../place/control-directory.ts";
import { dropOldTrees, keptTrees } from "../points/held-trees.ts";
import { storeWithout } from "../store/removed-paths.ts";
import { type FreedRemoved, freeIfPossible, freeRemoved } from "./cleanup.ts";
import { makeTreesAgain } from "./trees-again.ts";
import { lockOf, type PathHolder, storedPoint } from "./paths-to-remove.ts";

/**
 * Removes paths from all points of a control directory: of all its workspaces, also undo points and pinned points. The
 * points keep their ids and numbers.
 * - Before: points that only a clone holds are sealed, so that the store tells which paths they hold.
 * - Intent and commit: the record in each workspace that has such points, first ● in the caller's. After a kill before
 * ● nothing was removed; after it the next holder of a workspace's lock finishes the removal in all workspaces.
 * - Stage: trees, manifests and a snapshot for each point. The digests are computed from the new trees, read back.
 * - Each point's record is replaced ●. After a kill between two of them some points have the paths and others do not.
 * - The former snapshots are removed, clones are made again without the paths, and stat caches are removed; then
 * unneeded content, then the records. Every step can be repeated: a point without the paths is skipped.
 */

const nameOf = ({ found }: Workspace): string => found.workspace.name;

/** Removes the paths of `holders` from their points. The caller holds the locks of `workspaces`; the first is its own. */
export async function removePaths(
  workspaces: readonly Workspace[],
  holders: readonly PathHolder[],
  call: WorkspaceCall,
): Promise<FreedRemoved> {
  const paths = new Map(holders.flatMap((holder) => holder.paths.map((path) => [latin1(path), recordPath(path)])));
  const points = Map.groupBy(holders, ({ workspace }) => nameOf(workspace));
  const removal: RemovedPathsFile = {
    at: new Date().toISOString(),
    paths: [...paths.values()],
    points: [...points].map(([name, of]) => ({
      workspace_name: name,
      ids: of.map(({ point }) => point.descriptor.save_point_id),
    })),
  };
  const [own] = workspaces as [Workspace];
  const { control } = own.found;
  failpoint("paths.planned");
  for (const workspace of workspaces) {
    if (workspace !== own && !points.has(nameOf(workspace))) continue;
    workspace.requireLock();
    await makingRoom(control, () => recordIn(workspace).begin(removal));
    failpoint("paths.journal-written");
  }
  await makingRoom(control, async () => rewritePoints(workspaces, removal, call));
  const freed = await makingRoom(control, async () =>
    freeRemoved(own, { removed: [], thorough: true, waitMs: 10_000, signal: call.signal }),
  );
  failpoint("paths.freed");
  for (const workspace of workspaces.toReversed()) {
    recordIn(workspace).end();
    failpoint("paths.journal-removed");
  }
  return freed;
}

const recordIn = (workspace: Workspace): Unfinished<RemovedPathsFile> => workspace.unfinished("removed-paths");

/** Removes the paths from the points' records, snapshots, clones and stat caches. The content in the store stays. */
async function rewritePoints(
  workspaces: readonly Workspace[],
  removal: RemovedPathsFile,
  call: WorkspaceCall,
): Promise<void> {
  const total = removal.points.reduce((sum, { ids }) => sum + ids.length, 0);
  let done = 0;
  for (const workspace of workspaces) {
    const ids = new Set<string>(removal.points.find((each) => each.workspace_name === nameOf(workspace))?.ids);
    if (ids.size === 0) continue;
    call.onProgress?.({ phase: "cleaning", done, total });
    await rewriteIn(workspace, ids, removal, call);
    done += ids.size;
  }
}

async function rewriteIn(
  workspace: Workspace,
  ids: ReadonlySet<string>,
  { at, paths }: RemovedPathsFile,
  call: WorkspaceCall,
): Promise<void> {
  const { points, engine, found } = workspace;
  const chosen = points.list().points.filter(({ descriptor }) => ids.has(descriptor.save_point_id));
  const gone = new Set(paths.map((path) => latin1(rawPath(path))));
  const takes = { fits: (path: string) => gone.has(path), isAnywhere: () => false };
  const stored = await storeWithout(engine, chosen.map(storedPoint), { takes, signal: call.signal });
  failpoint("paths.staged");
  for (const point of chosen) {
    const without = stored.get(point.descriptor.save_point_id);
    if (without === undefined) continue;
    workspace.requireLock();
    points.replaceContent(
      point,
      stateWithout(point, without, { at, isGone: isAmong(without.removed) }),
      without.content,
    );
    failpoint("paths.point-rewritten");
  }
  const now = points.list().points.filter(({ descriptor }) => ids.has(descriptor.save_point_id));
  const own = new Map(now.map(({ descriptor }) => [descriptor.save_point_id as string, descriptor.content.snapshot]));
  await engine.discard([...ids], own);
  failpoint("paths.snapshots-removed");
  await dropOldTrees(points, { keep: keptTrees(found.control, call.onWarning), onWarning: call.onWarning });
  await makeTreesAgain(workspace, now, { paths: paths.map(rawPath), call });
  failpoint("paths.clones-made");
  if (fs.existsSync(found.control.cache)) removeStatCaches(found.control, found.workspace.id);
}

/** Finishes removals that the journals of these workspaces record. The caller holds all their locks. */
export async function finishRemovals(workspaces: readonly Workspace[], call: WorkspaceCall): Promise<Recovery[]> {
  const recovered: Recovery[] = [];
  for (const workspace of workspaces) {
    const removal = recordIn(workspace).read();
    if (removal === null) continue;
    const ended = await finishRemoval(workspace, workspaces, { removal, call });
    recovered.push({ operation: "cleanup", outcome: "completed", kept: [], ...ended });
  }
  return recovered;
}

/**
 * Finishes a removal. The caller holds the locks of `workspaces`. The journal stays if others have points to rewrite.
 */
async function finishRemoval(
  own: Workspace,
  workspaces: readonly Workspace[],
  { removal, call }: { removal: RemovedPathsFile; call: WorkspaceCall },
): Promise<NonNullable<Ended>> {
  await rewritePoints(workspaces, removal, call);
  const held = new Set(workspaces.map(nameOf));
  const names = new Set(listWorkspaces(own.found.control).map(({ name }) => name));
  const left = removal.points.filter(({ workspace_name: name }) => names.has(name) && !held.has(name));
  // Points in other workspaces still need the content.
  const problem =
    left.length > 0 ? "" : await freeIfPossible(own, { removed: [], thorough: true, signal: call.signal });
  for (const workspace of workspaces) {
    if (workspace !== own && recordIn(workspace).read()?.at === removal.at) recordIn(workspace).end();
  }
  if (left.length === 0) recordIn(own).end();
  else recordIn(own).begin({ ...removal, points: left });
  const count = removal.points.reduce((sum, { ids }) => sum + ids.length, 0);
  const rest = left.length === 0 ? "has been finished" : "goes on once no other process uses the other workspaces";
  return { detail: `a removal of paths from ${plural(count, "point")} was interrupted and ${rest}${problem}` };
}

export const REMOVED_PATHS = journaled({
  kind: "removed-paths",
  operation: "cleanup",
  where: "`journal/removed-paths.json` of each workspace with such points",
  steps: [
    "points that only a clone holds are sealed",
    "● the record in the caller's workspace, then in the others: the paths and the points",
    "trees, manifests and a snapshot for each point are stored; the record of each point is replaced",
    "former snapshots, clones and unneeded content are removed",
  ],
  before: null,
  after: "goes on in every workspace that no other process uses; points without the paths are skipped",
  changesFolder: false,
  unreadable: () => "some of the paths to remove may still be there; all points that `cairn history` lists are whole",
  finish: finishEverywhere,
});

/** Finishes a removal, also in workspaces that no process uses. The caller holds the workspace's lock. */
async function finishEverywhere(workspace: Workspace, removal: RemovedPathsFile, call: WorkspaceCall): Promise<Ended> {
  const wanted = new Set(removal.points.map(({ workspace_name: name }) => name));
  const locked: { other: Workspace; lock: Lock }[] = [];
  const others = besideOrNone(workspace);
  try {
    for (const other of others.filter((each) => wanted.has(nameOf(each)))) {
      const lock = await lockOrNull(other, call);
      if (lock === null) continue;
      locked.push({ other, lock });
      removeTemporaries(other);
    }
    return await finishRemoval(workspace, [workspace, ...locked.map(({ other }) => other)], { removal, call });
  } catch (error) {
    const { code, message } = toCairnError(error);
    if (code !== "damaged") throw error;
    // The removal waits for a repair; saves do not wait for it.
    call.onWarning?.(`a removal of paths was interrupted, and cannot go on: ${message}`);
    return null;
  } finally {
    for (const { lock } of locked) lock.release();
    for (const other of others) await other.close();
  }
}

/** Returns the other workspaces; none if a record cannot be read, so that work in this one goes on. */
function besideOrNone(workspace: Workspace): Workspace[] {
  try {
    return workspacesBeside(workspace);
  } catch {
    return [];
  }
}

async function lockOrNull(other: Workspace, call: WorkspaceCall): Promise<Lock | null> {
  try {
    return await lockOf(other, { ...call, lockTimeoutMs: 0 });
  } catch (error) {
    const problem = toCairnError(error);
    if (problem.code === "interrupted") throw problem;
    return null;
  }
}
