import fs from "node:fs";
import { join } from "node:path";
import { append } from "../../append.ts";
import { pathsBelow } from "../../clones/walk-entries.ts";
import { CairnError, line, throwIfAborted, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { latin1 } from "../../formats/bytes.ts";
import { encodeRemovedPaths, type RemovedPathsFile } from "../../formats/records/cleanup.ts";
import type { Recovery } from "../../formats/records/control.ts";
import { MAX_OMITTED } from "../../formats/records/descriptor.ts";
import { rawPath, recordPath } from "../../formats/records/record.ts";
import type { SealedState } from "../../formats/records/seal-file.ts";
import { plural } from "../../formats/sizes.ts";
import { durableRemove, durableWrite } from "../../fs/durable.ts";
import { IGNORE_FILE } from "../../fs/ignore.ts";
import { acquireLock, type Lock } from "../../fs/lock.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import type { TakenEntries } from "../../repository/trees/tree-mender.ts";
import { makingRoom, removeStatCaches, removeTemporaries } from "../open/temporaries.ts";
import { type Workspace, type WorkspaceCall, workspacesBeside } from "../open/workspace.ts";
import { isReleased, listLeases, listWorkspaces } from "../place/control-directory.ts";
import { lockingOf } from "../place/registry.ts";
import {
  dropOldTrees,
  heldTreeProblem,
  holdsMore,
  keptTrees,
  removeSpareTrees,
  treePlace,
} from "../points/held-trees.ts";
import { PATHS_JOURNAL, readPathsJournal } from "../points/journals.ts";
import type { Point } from "../points/point-files.ts";
import type { CopyContent } from "../store/copy-content.ts";
import { type ContentWithout, isGoneBy, pathsInPoints, type StoredPoint } from "../store/removed-paths.ts";
import { type CleanupCall, type FreedRemoved, freeIfPossible, freeRemoved } from "./cleanup.ts";

/**
 * Removes paths from all points of a control directory: of all its workspaces, also undo points and pinned points. The
 * points keep their ids and numbers.
 * - Before: points that only a clone holds are sealed, so that the store tells which paths they hold.
 * - Intent and commit: `journal/paths.json` in each workspace that has such points, first ● in the caller's. After a kill
 * before ● nothing was removed; after it the next holder of a workspace's lock finishes the removal in all workspaces.
 * - Stage: trees, manifests and a snapshot for each point. The digests are computed from the new trees as they are read back.
 * - Each point's record is replaced ●. After a kill between two of them some points have the paths and others do not.
 * - The former snapshots, clones and stat caches are removed, then the content that nothing needs, then the journals.
 * Every step can be done again: a point without the paths is passed over.
 */

/** A point that holds paths to remove. */
export interface PathHolder {
  readonly workspace: Workspace;
  readonly point: Point;
  /** Raw paths; those of ignored files, which only the clone of the point has, too. */
  readonly paths: readonly Uint8Array[];
}

const nameOf = ({ found }: Workspace): string => found.workspace.name;

/** Takes the lock of a workspace, also of a released one, which no other command takes. */
export async function lockOf(workspace: Workspace, call: WorkspaceCall): Promise<Lock> {
  const { found } = workspace;
  return isReleased(found.workspace)
    ? acquireLock(found.paths.lock, lockingOf("cleanup", call))
    : workspace.lock("cleanup", call);
}

/**
 * Seals what is not sealed and finds the points that hold entries that `takes` fits, and the ids (latin1) of the blobs of these
 * files. For the holder of all locks. Throws
 * `damaged` for points that cannot be read, `permission` for points of whose clones this user cannot read everything.
 */
export async function findHolders(
  workspaces: readonly Workspace[],
  takes: TakenEntries,
  { seal, ...call }: CleanupCall,
): Promise<{ holders: PathHolder[]; content: Set<string> }> {
  const holders: PathHolder[] = [];
  const content = new Set<string>();
  for (const workspace of workspaces) {
    const before = workspace.points.list().points.filter(({ sealed }) => !sealed);
    if (before.length > 0) await seal(workspace, call, before.map(({ sequence }) => sequence).toReversed());
    const { points, damaged } = workspace.points.list();
    if (damaged.length > 0) throw damaged[0]!.problem;
    const sealed = points.filter((point) => point.sealed || requireGone(workspace, point, call));
    const stored = await workspace.engine.reading(
      async () =>
        pathsInPoints(await workspace.engine.store(call), sealed.map(storedPoint), { takes, content, ...call }),
      call,
    );
    for (const point of sealed) {
      throwIfAborted(call.signal);
      const own = stored.get(point.descriptor.save_point_id) ?? [];
      const inClone =
        own.length > 0 && !holdsMore(workspace.points, point)
          ? []
          : await pathsInClone(workspace, point, { takes, call });
      const paths = [...own, ...inClone.filter((path) => !own.some((each) => latin1(each) === latin1(path)))];
      if (paths.length === 0) continue;
      if (holdsMore(workspace.points, point)) throw unreadable(point);
      holders.push({ workspace, point, paths });
    }
  }
  requireNoViews(holders);
  return { holders, content };
}

/** False for a point whose content is gone with its clone. Throws if the clone is there and could not be sealed. */
function requireGone({ points }: Workspace, point: Point, { onWarning }: WorkspaceCall): boolean {
  const id = point.descriptor.save_point_id.slice(0, 8);
  const place = treePlace(points, point);
  if (fs.lstatSync(place, { throwIfNoEntry: false }) !== undefined)
    throw (
      heldTreeProblem(points, point) ??
      new CairnError(
        "unsupported",
        `the point ${id} could not be sealed, so Cairn does not know which paths it holds`,
        {
          hint: line("seal"),
        },
      )
    );
  onWarning?.(`the point ${id} is passed over: its clone is missing, and with it its content`);
  return false;
}

/** The clone of a point has its ignored files too, which the store does not have. */
async function pathsInClone(
  { points }: Workspace,
  point: Point,
  { takes, call }: { takes: TakenEntries; call: WorkspaceCall },
): Promise<Buffer[]> {
  const tree = treePlace(points, point);
  const isThere = fs.lstatSync(tree, { throwIfNoEntry: false })?.isDirectory() === true;
  return isThere ? pathsBelow(Buffer.from(tree), (path) => takes.fits(path), call.signal) : [];
}

function unreadable({ descriptor: { save_point_id: id } }: Point): CairnError {
  return new CairnError(
    "permission",
    `the point ${id.slice(0, 8)} holds such a path, and its clone has files that this user cannot read: they are in no other place, so the clone cannot be removed`,
    { hint: "run `cairn seal` as a user who can read all files, then try again" },
  );
}

function requireNoViews(holders: readonly PathHolder[]): void {
  const [first] = holders;
  const lease =
    first &&
    listLeases(first.workspace.found.control).find(({ save_point_id: id }) =>
      holders.some(({ point }) => point.descriptor.save_point_id === id),
    );
  if (lease === undefined) return;
  throw new CairnError(
    "refused",
    `a view of ${lease.save_point_id.slice(0, 8)} is open, which holds such a path: ${lease.path}`,
    { hint: line(`view --close ${lease.view_id}`, "closeView", lease.view_id) },
  );
}

function storedPoint({ descriptor: { save_point_id: id, content, entries, bytes } }: Point): StoredPoint {
  return { id, content: content as unknown as CopyContent, entries, bytes };
}

/** Removes the paths that `holders` were found to hold. For the holder of the locks of `workspaces`, of which the caller's is the first. */
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
    await makingRoom(control, () => durableWrite(journalOf(workspace), encodeRemovedPaths(removal)));
    failpoint("paths.journal-written");
  }
  await makingRoom(control, async () => rewritePoints(workspaces, removal, call));
  const freed = await makingRoom(control, async () =>
    freeRemoved(own, { removed: [], thorough: true, waitMs: 10_000, signal: call.signal }),
  );
  failpoint("paths.freed");
  for (const workspace of workspaces.toReversed()) {
    durableRemove(journalOf(workspace));
    failpoint("paths.journal-removed");
  }
  return freed;
}

function journalOf({ found }: Workspace): string {
  return join(found.paths.journal, PATHS_JOURNAL);
}

/** Takes the paths out of the records of the points, and removes what else has them, but for the content in the store. */
async function rewritePoints(
  workspaces: readonly Workspace[],
  removal: RemovedPathsFile,
  call: WorkspaceCall,
): Promise<void> {
  const total = removal.points.reduce((sum, { ids }) => sum + ids.length, 0);
  let done = 0;
  for (const workspace of workspaces) {
    const ids = new Set<string>(removal.points.find((each) => each.workspace_name === nameOf(workspace))?.ids);
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
  const stored = await engine.storeWithout(chosen.map(storedPoint), { takes, signal: call.signal });
  failpoint("paths.staged");
  for (const point of chosen) {
    const without = stored.get(point.descriptor.save_point_id);
    if (without === undefined) continue;
    workspace.requireLock();
    points.replaceContent(point, stateWithout(point, without, at), without.content);
    failpoint("paths.point-rewritten");
  }
  const now = points.list().points.filter(({ descriptor }) => ids.has(descriptor.save_point_id));
  const own = new Map(now.map(({ descriptor }) => [descriptor.save_point_id as string, descriptor.content.snapshot]));
  await engine.discard([...ids], own);
  failpoint("paths.snapshots-removed");
  const sequences = now.map(({ sequence }) => sequence);
  for (const tree of await removeSpareTrees(points, sequences))
    call.onWarning?.(`${tree} stays: Cairn did not make this folder; remove it if it has the removed paths`);
  await dropOldTrees(points, { keep: keptTrees(found.control, call.onWarning), onWarning: call.onWarning });
  failpoint("paths.clones-removed");
  if (fs.existsSync(found.control.cache)) removeStatCaches(found.control, found.workspace.id);
}

function stateWithout({ descriptor }: Point, without: ContentWithout, at: string): SealedState {
  const isGone = isGoneBy(without.removed);
  const kept = <T extends { path: string; path_b64?: string }>(list: readonly T[]): T[] =>
    list.filter((each) => !isGone(rawPath(each)));
  const { rules, state_digest: before, omitted_count: count } = descriptor;
  const omitted = kept(descriptor.omitted);
  // Of an ignore file the rules have the text.
  const files = rules.files?.filter(
    (each) => !isGone(Buffer.from(join("/", latin1(rawPath(each)), IGNORE_FILE).slice(1), "latin1")),
  );
  return {
    state_digest: before === null ? null : without.stateDigest,
    metadata_digest: descriptor.metadata_digest === null ? null : without.metadataDigest,
    complete: descriptor.complete,
    entries: without.entries,
    bytes: without.bytes,
    bytes_stored: descriptor.bytes_stored,
    unchanged: descriptor.unchanged,
    labels: kept(descriptor.labels),
    omitted,
    omitted_count: count - descriptor.omitted.length + omitted.length,
    rules: { ...rules, ...(files === undefined ? {} : { files }), ignored_sample: kept(rules.ignored_sample) },
    rewritten: [
      ...(descriptor.rewritten ?? []),
      { at, paths: without.removed.slice(0, MAX_OMITTED).map(recordPath), digest_before: before },
    ],
  };
}

/** Finishes removals that the journals of these workspaces tell of. For the holder of all their locks. */
export async function finishRemovals(workspaces: readonly Workspace[], call: WorkspaceCall): Promise<Recovery[]> {
  const recovered: Recovery[] = [];
  for (const workspace of workspaces) {
    const removal = readPathsJournal(workspace.found.paths.journal);
    if (removal !== null) append(recovered, [await finishRemoval(workspace, workspaces, { removal, call })]);
  }
  return recovered;
}

/** `workspaces`: those whose locks are held. The journal stays if others have points to rewrite. */
async function finishRemoval(
  own: Workspace,
  workspaces: readonly Workspace[],
  { removal, call }: { removal: RemovedPathsFile; call: WorkspaceCall },
): Promise<Recovery> {
  await rewritePoints(workspaces, removal, call);
  const problem = await freeIfPossible(own, { removed: [], thorough: true, signal: call.signal });
  const held = new Set(workspaces.map(nameOf));
  const names = new Set(listWorkspaces(own.found.control).map(({ name }) => name));
  const left = removal.points.filter(({ workspace_name: name }) => names.has(name) && !held.has(name));
  for (const workspace of workspaces) {
    if (workspace !== own && readPathsJournal(workspace.found.paths.journal)?.at === removal.at)
      durableRemove(journalOf(workspace));
  }
  if (left.length === 0) durableRemove(journalOf(own));
  const count = removal.points.reduce((sum, { ids }) => sum + ids.length, 0);
  const rest = left.length === 0 ? "has been finished" : "goes on once no other process uses the other workspaces";
  return {
    operation: "cleanup",
    outcome: "completed",
    detail: `a removal of paths from ${plural(count, "point")} was interrupted and ${rest}${problem}`,
    kept: [],
  };
}

/** Finishes an interrupted removal, also in the other workspaces that no process uses. For the holder of the workspace's lock. */
export async function recoverRemovedPaths(workspace: Workspace, call: WorkspaceCall): Promise<Recovery[]> {
  const removal = readPathsJournal(workspace.found.paths.journal);
  if (removal === null) return [];
  call.onProgress?.({ phase: "recovering", done: 0 });
  const wanted = new Set(removal.points.map(({ workspace_name: name }) => name));
  const locked: { other: Workspace; lock: Lock }[] = [];
  const others = workspacesBeside(workspace);
  try {
    for (const other of others.filter((each) => wanted.has(nameOf(each)))) {
      const lock = await lockOrNull(other, call);
      if (lock === null) continue;
      locked.push({ other, lock });
      removeTemporaries(other);
    }
    return [await finishRemoval(workspace, [workspace, ...locked.map(({ other }) => other)], { removal, call })];
  } finally {
    for (const { lock } of locked) lock.release();
    for (const other of others) await other.close();
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

/** Raw paths of SQLite databases in points, as their labels say. */
export function databasesIn(workspaces: readonly Workspace[]): string[] {
  const labels = workspaces.flatMap(({ points }) =>
    points.list().points.flatMap(({ descriptor }) => descriptor.labels),
  );
  const databases = labels.filter(({ label }) => label === "transaction-consistent" || label === "crash-consistent");
  return [...new Set(databases.map((label) => printablePath(rawPath(label))))].toSorted();
}
