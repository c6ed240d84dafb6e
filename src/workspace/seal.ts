import { existsSync, rmSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";
import type { PointContent, StagedContent, StageRequest, TreeSource } from "../engines/engine.ts";
import { presentSource } from "../engines/scan/present-source.ts";
import { changedSince } from "../engines/tree/as-made.ts";
import { latestChange } from "../engines/tree/latest-change.ts";
import { CairnError, cannotBeWritten, toCairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import type { Descriptor } from "../formats/descriptor.ts";
import type { SealFile } from "../formats/seal-file.ts";
import { isSubvolume } from "../fs/btrfs.ts";
import { removeLeftovers } from "../fs/durable.ts";
import { loadOrigins } from "../fs/origins.ts";
import { printablePath } from "../fs/safe-path.ts";
import { isSavePointId, type SavePointId } from "../ids.ts";
import { readIntentLink, removeIntentLink, writeIntentLink } from "./intent-link.ts";
import { changedTree, dropOldTrees, heldTreeProblem } from "./held-trees.ts";
import type { Point } from "./point-files.ts";
import type { Points } from "./points.ts";
import { hasOwnTree, markedOwner, neededOwner, treePlace } from "./shared-trees.ts";
import { isUnchanged, sealedStateOf, stageRequest } from "./record-point.ts";
import type { Workspace, WorkspaceCall } from "./workspace.ts";

/**
 * Sealing: a held tree is read, what is new of it goes into the store, and digests, counts and ids are recorded beside
 * the descriptor. From then on the point does not depend on its held tree any more.
 *
 * Intent: a link in the journal directory. Stage: content and snapshot in the store. Commit: `seal.json` gets its name.
 * A kill before that leaves a snapshot with the point's mark, which recovery or the next attempt takes back.
 */
export async function sealPoint(workspace: Workspace, point: Point, call: WorkspaceCall): Promise<Point> {
  if (point.sealed) return point;
  const { descriptor, sequence } = point;
  const { root } = workspace.points.pathsOf(sequence);
  const problem = heldTreeProblem(workspace.points, point);
  if (problem !== null) throw problem;
  // Of an attempt that was killed.
  removeLeftovers(root, { exclusive: true });
  await recoverSeal(workspace);
  writeIntentLink(workspace.found.paths.journal, SEAL_JOURNAL, [descriptor.save_point_id]);
  failpoint("seal.intent");
  let staged: Staged;
  try {
    staged = (await stageAsParent(workspace, point, call)) ?? (await stageByReading(workspace, point, call));
  } catch (error) {
    removeIntentLink(workspace.found.paths.journal, SEAL_JOURNAL);
    throw error;
  }
  failpoint("seal.staged");
  // Before the commit, after which nobody would look for it.
  rmSync(workspace.points.pathsOf(sequence).origins, { force: true });
  failpoint("seal.origins-removed");
  const sealed = workspace.points.seal(sequence, staged.seal);
  failpoint("seal.committed");
  removeIntentLink(workspace.found.paths.journal, SEAL_JOURNAL);
  await staged.settled?.();
  return sealed;
}

interface Staged {
  seal: SealFile;
  settled?: () => Promise<void>;
}

async function stageByReading(workspace: Workspace, point: Point, call: WorkspaceCall): Promise<Staged> {
  const { descriptor } = point;
  const parent = parentOf(workspace, point);
  const request = stageRequest(
    workspace,
    { ...call, exclude: descriptor.rules.exclude, message: descriptor.message },
    { rules: null, head: parent, id: descriptor.save_point_id },
  );
  let staged: StagedContent | undefined;
  try {
    staged = await workspace.engine.stage({
      ...request,
      root: Buffer.from(treePlace(workspace.points, point)),
      recordedRoot: workspace.found.recordedFolder ?? workspace.root,
      labels: descriptor.labels,
      ...heldAt(workspace.points, point),
    });
    requireAsMade(workspace, point, staged);
    return { seal: sealOf(point, staged, parent), settled: staged.settled };
  } catch (error) {
    // Nothing of it goes into the stat cache: what it has is not looked at again.
    await staged?.discard();
    throw error;
  }
}

/**
 * What is known of the parent, for a point that holds the same tree and leaves out the same; null for others, and where
 * the store lacks some of it, which reading stores again.
 */
async function stageAsParent(workspace: Workspace, point: Point, call: WorkspaceCall): Promise<Staged | null> {
  const parent = parentOf(workspace, point);
  if (parent === null || !isSameTree(point, parent)) return null;
  const known = parent.descriptor;
  const content = await workspace.engine.repeat(known.content as unknown as PointContent, {
    pointId: point.descriptor.save_point_id,
    root: workspace.found.recordedFolder ?? workspace.root,
    ...call,
  });
  return content === null ? null : { seal: sealAs(point, { known, content }) };
}

/** Whether a point holds its parent's tree, all of which the parent's seal knows, and leaves out the same of it. */
function isSameTree({ descriptor }: Point, { descriptor: known, sequence }: Point): boolean {
  const [own, parents] = [descriptor.content.held, known.content.held];
  // A descriptor that was made anew knows of no tree, nor of what was left out.
  if (own?.tree_of === undefined || parents?.last_change !== own.last_change) return false;
  if (own.tree_of !== sequence && own.tree_of !== parents?.tree_of) return false;
  if (!known.complete || known.omitted_count > 0) return false;
  return isDeepStrictEqual(descriptor.rules.exclude, known.rules.exclude);
}

/** Its name in the journal directory. */
export const SEAL_JOURNAL = "sealing";

/** The point that is being sealed, its id null where the link names none; null where no sealing is under way. */
export function readSealIntent(journal: string): { id: SavePointId | null } | null {
  return readIntentLink(journal, SEAL_JOURNAL, (words) => ({ id: isSavePointId(words) ? words : null }));
}

/**
 * Takes back what a sealing left in the store that ended before its commit. A link that names no point is dropped: what
 * it meant costs room only. For the lock's holder.
 */
export async function recoverSeal(workspace: Workspace): Promise<void> {
  const { journal } = workspace.found.paths;
  const left = readSealIntent(journal);
  if (left === null) return;
  if (left.id !== null && isLeftOver(workspace.points, left.id)) await workspace.engine.discard([left.id]);
  removeIntentLink(journal, SEAL_JOURNAL);
}

/** False where the snapshot with a point's mark may be what gives the point back: it is damaged, or any that is may be it. */
function isLeftOver(points: Points, id: SavePointId): boolean {
  try {
    const point = points.byId(id);
    return point === null ? points.list().damaged.length === 0 : !point.sealed;
  } catch (error) {
    if (toCairnError(error).code === "damaged") return false;
    throw error;
  }
}

/**
 * What is known of a tree's making. Before a snapshot or a clone of a file is made, all that was stored in it by then
 * through mappings is written back, so that a later store moves its times. A clone's own inodes are new, and stand for
 * those that they were made from.
 */
function heldAt(points: Points, { descriptor, sequence }: Point): Pick<StageRequest, "heldAt" | "clonedFrom"> {
  const { held } = descriptor.content;
  if (held === undefined) return {};
  const at = Date.parse(held.at);
  if (held.engine === "btrfs-snapshot") return { heldAt: at };
  const origins = held.engine === "reflink-copy" ? loadOrigins(points.pathsOf(sequence).origins) : null;
  if (origins === null) return {};
  return { heldAt: at, clonedFrom: { ...origins, until: latestChange(Date.parse(descriptor.created_at)) } };
}

/**
 * A point that cannot be sealed where it lies, as a readable state without contents: its tree is read as a seal would
 * read it, and nothing is stored.
 */
export async function readHeld(workspace: Workspace, point: Point, call: WorkspaceCall): Promise<TreeSource> {
  const { descriptor } = point;
  const request = stageRequest(
    workspace,
    { ...call, exclude: descriptor.rules.exclude, reread: true },
    { rules: null, head: null, id: descriptor.save_point_id },
  );
  const looked = await workspace.engine.look({
    ...request,
    root: Buffer.from(treePlace(workspace.points, point)),
    ...heldAt(workspace.points, point),
  });
  requireAsMade(workspace, point, looked);
  return presentSource(looked.scan);
}

/** Throws `damaged` when the tree that was just read is not, or not any more, what was captured. */
function requireAsMade(workspace: Workspace, point: Point, { scan }: Pick<StagedContent, "scan">): void {
  const problem = heldTreeProblem(workspace.points, point);
  if (problem !== null) throw problem;
  const { descriptor } = point;
  const tree = treePlace(workspace.points, point);
  // A clone's inodes are no newer than the clone, so that a later change shows in each; a snapshot tells it as a whole.
  if (descriptor.effective_engine === "btrfs-snapshot") return;
  const changed = changedSince(scan, tree, Date.parse(descriptor.created_at));
  if (changed !== null)
    throw changedTree(tree, `the point ${descriptor.save_point_id}`, `was changed after it was made: ${changed}`);
}

/** A point that cannot be sealed, and why; id null: any that is not sealed. */
export interface SealProblem {
  id: SavePointId | null;
  problem: CairnError;
}

/** Whether it is the point that cannot be sealed, now and later; other problems pass. */
export function isAboutThePoint({ code }: CairnError): boolean {
  return code === "damaged" || code === "newer_version";
}

export interface SealedPending {
  sealed: number;
  /** what cannot be sealed stays as it is and keeps nobody from the others */
  problems: SealProblem[];
}

/**
 * Seals every point that is not, oldest first; what is damaged is passed over and said. For the holder of the
 * workspace's lock. Throws what is not about one point, e.g. `no_space`.
 */
export async function sealPending(
  workspace: Workspace,
  call: WorkspaceCall,
  sequences: readonly number[] = unsealed(workspace),
): Promise<SealedPending> {
  const done: SealedPending = { sealed: 0, problems: [] };
  const newest = newestNeeding(workspace.points, sequences);
  for (const sequence of sequences) {
    let id: SavePointId | null = null;
    try {
      const point = workspace.points.read(sequence);
      id = point.descriptor.save_point_id;
      if (point.sealed) continue;
      await sealPoint(workspace, point, call);
      done.sealed++;
      await dropOldTrees(workspace.points, {
        newest: sequence,
        // One more than there came, so that what an earlier call left goes too.
        most: 2,
        lookBack: FEW_POINTS,
        // Those that are older and could not be sealed are met on the way.
        isNeeded: (owner) => (newest.get(owner) ?? 0) > sequence,
        onWarning: call.onWarning,
      });
    } catch (error) {
      const problem = toCairnError(error);
      if (!isAboutThePoint(problem)) throw problem;
      done.problems.push({ id, problem });
      call.onWarning?.(`the point ${id ?? sequence} cannot be sealed: ${problem.message}`);
    }
  }
  return done;
}

/** Of each point with which a tree lies that these need, the newest of them; they are ascending. */
function newestNeeding(points: Points, sequences: readonly number[]): Map<number, number> {
  const newest = new Map<number, number>();
  for (const sequence of sequences) {
    const owner = neededOwner(points, sequence);
    if (owner !== null) newest.set(owner, sequence);
  }
  return newest;
}

/**
 * For calls that need digests or contents: seals what is not, under the lock, when there is anything. Where there is
 * no room for that, or nothing may be written, the call goes on with what is sealed: it may be the one that makes room,
 * or that gets out what a file system still gives.
 */
export async function ensureSealed(workspace: Workspace, call: WorkspaceCall): Promise<SealedPending> {
  if (unsealed(workspace).length === 0) return NOTHING;
  try {
    workspace.engine.prepare();
    using _lock = await workspace.lock("seal", call);
    return await sealPending(workspace, call);
  } catch (error) {
    const problem = toCairnError(error);
    if (!cannotBeWritten(problem)) throw problem;
    call.onWarning?.(`not every point could be sealed: ${problem.message}`);
    return { sealed: 0, problems: [{ id: null, problem }] };
  }
}

/** So far back a call that is about something else looks for trees to remove, and for points to seal. */
const FEW_POINTS = 64;
const NOTHING: SealedPending = { sealed: 0, problems: [] };
/** So many saves of others between sealing and reading are had in mind. */
const MOST_ROUNDS = 5;

/**
 * {@link ensureSealed}, then the work, which is told what could not be sealed; both again when the work needs a point
 * that another process saved meanwhile.
 */
export async function withSealed<T>(
  workspace: Workspace,
  call: WorkspaceCall,
  work: (problems: readonly SealProblem[]) => Promise<T>,
): Promise<T> {
  for (let round = 1; ; round++) {
    const { problems } = await ensureSealed(workspace, call);
    try {
      return await work(problems);
    } catch (error) {
      const id = toCairnError(error).details?.["unsealed"];
      if (typeof id !== "string") throw error;
      const point = workspace.points.byId(id as SavePointId);
      const problem = point === null ? null : whyUnsealed(workspace.points, point, problems);
      if (problem !== null) throw problem;
      if (round === MOST_ROUNDS) throw error;
      workspace.points.refresh();
    }
  }
}

/** Seals as {@link sealPending} does, and also names the points whose tree is gone, which only their descriptors tell. */
export async function sealAll(workspace: Workspace, call: WorkspaceCall): Promise<SealedPending> {
  const open = workspace.points.list().points.filter(({ sealed }) => !sealed);
  const done = await sealPending(workspace, call, open.map(({ sequence }) => sequence).toReversed());
  // Also what earlier calls were killed in, or left for later.
  await dropOldTrees(workspace.points, { onWarning: call.onWarning });
  return done;
}

/**
 * Why a point that is not sealed cannot be, as far as that is known without reading its tree; null where nothing
 * speaks against sealing it. Points are sealed oldest first: what is older than a sealed one was passed over, unless it
 * is a snapshot, which may have been left behind.
 */
export function whyUnsealed(points: Points, point: Point, problems: readonly SealProblem[]): CairnError | null {
  const { sequence, descriptor } = point;
  const id = descriptor.save_point_id;
  const known =
    heldTreeProblem(points, point) ?? problems.find((each) => each.id === id || each.id === null)?.problem ?? null;
  if (known !== null) return cannotBeWritten(known) ? notReadYet(points, point, known) : known;
  if (isSubvolume(treePlace(points, point))) return null;
  const passedOver = points.sequences().some((newer) => newer > sequence && existsSync(points.pathsOf(newer).seal));
  if (!passedOver) return null;
  return new CairnError("damaged", `the point ${id} could not be sealed: its content was not looked at`, {
    hint: "`cairn seal` says why",
  });
}

function notReadYet(points: Points, point: Point, why: CairnError): CairnError {
  const tree = printablePath(Buffer.from(treePlace(points, point)));
  return new CairnError(why.code, `the point ${point.descriptor.save_point_id} is not sealed yet: ${why.message}`, {
    hint: `what it holds lies in ${tree}; look, but change nothing there`,
    cause: why,
  });
}

/**
 * Numbers of finished points that only a held tree has the content of, ascending. Reads no descriptor of those that were
 * saved since the last seal. What was passed over is not tried again; `sealAll` does.
 */
function unsealed({ points, found }: Workspace): number[] {
  if (!existsSync(found.paths.holds)) return [];
  const open: number[] = [];
  let isOlder = false;
  let inARow = 0;
  for (const sequence of points.sequences().toReversed()) {
    const { seal, descriptor } = points.pathsOf(sequence);
    if (existsSync(seal)) {
      isOlder = true;
      if (++inARow === FEW_POINTS) break;
    } else if (holdsTree(points, sequence) && existsSync(descriptor) && (!isOlder || isLeftBehind(points, sequence))) {
      open.push(sequence);
      inARow = 0;
    }
  }
  return open.reverse();
}

function holdsTree(points: Points, sequence: number): boolean {
  const owner = markedOwner(points, sequence);
  return owner !== null && hasOwnTree(points, owner);
}

/**
 * Whether a point that is older than a sealed one can be sealed all the same: a restore by exchange seals the one that it
 * goes back to and no other. Only snapshots are exchanged, and of one it is known without reading that it is as made.
 */
function isLeftBehind(points: Points, sequence: number): boolean {
  try {
    const point = points.read(sequence);
    return isSubvolume(treePlace(points, point)) && heldTreeProblem(points, point) === null;
  } catch (error) {
    if (isAboutThePoint(toCairnError(error))) return false;
    throw error;
  }
}

function parentOf(workspace: Workspace, { descriptor }: Point): Point | null {
  const parent = workspace.byId(descriptor.parent_id);
  return parent?.sealed === true ? parent : null;
}

/** The seal of a point that is, entry for entry, a sealed one. */
function sealAs({ descriptor }: Point, more: { known: Descriptor; content: PointContent }): SealFile {
  const { known } = more;
  const { tree, snapshot_tree: snapshotTree, snapshot } = more.content as unknown as SealFile["content"];
  return {
    save_point_id: descriptor.save_point_id,
    sealed_at: new Date().toISOString(),
    content: { tree, snapshot_tree: snapshotTree, snapshot },
    state_digest: known.state_digest,
    metadata_digest: known.metadata_digest,
    complete: known.complete,
    entries: known.entries,
    bytes: known.bytes,
    bytes_stored: 0,
    unchanged: true,
    labels: known.labels,
    omitted: known.omitted,
    omitted_count: known.omitted_count,
    rules: known.rules,
  };
}

function sealOf(point: Point, staged: StagedContent, parent: Point | null): SealFile {
  const { descriptor } = point;
  const { tree, snapshot_tree: snapshotTree, snapshot } = staged.content as unknown as SealFile["content"];
  const read = sealedStateOf(staged, {
    exclude: descriptor.rules.exclude,
    rules: null,
    unchanged: descriptor.unchanged || isUnchanged(parent, staged),
  });
  return {
    save_point_id: descriptor.save_point_id,
    sealed_at: new Date().toISOString(),
    content: { tree, snapshot_tree: snapshotTree, snapshot },
    ...read,
    // What the capture found out cannot be seen in the tree.
    complete: descriptor.complete && read.complete,
    labels: [...descriptor.labels, ...read.labels],
  };
}
