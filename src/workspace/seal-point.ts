import { closeSync, constants, openSync, rmSync } from "node:fs";
import type { StagedContent, StageRequest, TreeSource } from "../engines/engine.ts";
import { presentSource } from "../engines/scan/present-source.ts";
import { changedSince } from "../engines/tree/as-made.ts";
import { latestChange } from "../engines/tree/latest-change.ts";
import { toCairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import type { Descriptor } from "../formats/descriptor.ts";
import { joinPath } from "../formats/bytes.ts";
import { rawPath } from "../formats/record.ts";
import type { SealFile } from "../formats/seal-file.ts";
import { removeLeftovers } from "../fs/durable.ts";
import { IGNORE_FILE, type IgnoreRecord, MAX_IGNORE_FILE_BYTES } from "../fs/ignore.ts";
import { loadOrigins } from "../fs/origins.ts";
import { joinRaw, listedNames, printablePath } from "../fs/safe-path.ts";
import type { SavePointId } from "../ids.ts";
import { encodeSealFile, isTooLong } from "./descriptor-file.ts";
import { changedTree, heldTreeProblem, holdsMore, treePlace } from "./held-trees.ts";
import { readSealIntent, removeIntentLink, SEAL_JOURNAL, writeIntentLink } from "./journals.ts";
import type { Point } from "./point-files.ts";
import type { Points } from "./points.ts";
import { isUnchanged, type SaveInput, sealedStateOf, stageRequest } from "./record-point.ts";
import { rootOfContent } from "./root-changes.ts";
import { rulesToReadBy } from "./undo-point.ts";
import type { Workspace, WorkspaceCall } from "./workspace.ts";

/**
 * Sealing: a held tree is read, what is new of it goes into the store, and digests, counts and ids are recorded beside
 * the descriptor. From then on the point does not depend on its held tree any more, but where this user could not read
 * all of it: then the tree stays, and whoever can read more of it makes the point's seal anew.
 *
 * Intent: a link in the journal directory. Stage: content and snapshot in the store. Commit: `seal.json` gets its name.
 * A kill before that leaves a snapshot with the point's mark, which recovery or the next attempt takes back; one after
 * it may leave that of the seal before, likewise. Returns the point as it was where nothing is gained.
 */
export async function sealPoint(
  workspace: Workspace,
  sealedOrNot: Point,
  call: Pick<SaveInput, keyof WorkspaceCall | "forward">,
): Promise<Point> {
  const isAgain = sealedOrNot.sealed;
  if (isAgain && !canReadMore(workspace.points, sealedOrNot)) return sealedOrNot;
  const point: Point = { ...sealedOrNot, descriptor: sealedOrNot.made, sealed: false };
  const { descriptor, sequence } = point;
  const { root, origins, verification } = workspace.points.pathsOf(sequence);
  const problem = heldTreeProblem(workspace.points, point);
  if (problem !== null) throw problem;
  // Of an attempt that was killed.
  removeLeftovers(root, { exclusive: true });
  await recoverSeal(workspace);
  writeIntentLink(workspace.found.paths.journal, SEAL_JOURNAL, [descriptor.save_point_id]);
  failpoint("seal.intent");
  let staged: Staged;
  try {
    staged = await stageByReading(workspace, point, call);
  } catch (error) {
    removeIntentLink(workspace.found.paths.journal, SEAL_JOURNAL);
    throw error;
  }
  failpoint("seal.staged");
  if (isAgain && staged.seal.omitted_count >= sealedOrNot.descriptor.omitted_count) {
    await staged.discard?.();
    removeIntentLink(workspace.found.paths.journal, SEAL_JOURNAL);
    return sealedOrNot;
  }
  // Before the commit, after which nobody would look for it.
  rmSync(origins, { force: true });
  // It speaks of what the seal before has.
  if (isAgain) rmSync(verification, { force: true });
  failpoint("seal.origins-removed");
  const sealed = workspace.points.seal(sequence, staged.file);
  failpoint("seal.committed");
  if (isAgain) await discardOthers(workspace, descriptor.save_point_id);
  removeIntentLink(workspace.found.paths.journal, SEAL_JOURNAL);
  await staged.settled?.();
  return sealed;
}

interface Staged {
  seal: SealFile;
  /** as it is written */
  file: Uint8Array;
  settled?: () => Promise<void>;
  discard?: () => Promise<void>;
}

/** Whether this user can read something that a point's seal lacks. */
function canReadMore(points: Points, point: Point): boolean {
  if (!holdsMore(points, point)) return false;
  const tree = Buffer.from(treePlace(points, point));
  return point.descriptor.omitted.some((each) => canBeRead(joinRaw(tree, rawPath(each))));
}

/** By opening it: what may be read beyond what modes say is not in what the system answers when it is asked. */
function canBeRead(place: Buffer): boolean {
  try {
    closeSync(openSync(place, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK));
    return true;
  } catch {
    return false;
  }
}

type SealCall = Pick<SaveInput, keyof WorkspaceCall | "forward">;

/** Rules that are too much to be recorded leave nothing out: a point without them can be gone back to, and loses nothing. */
async function stageByReading(workspace: Workspace, point: Point, call: SealCall): Promise<Staged> {
  const { save_point_id: id, rules: wanted } = point.descriptor;
  const rules = rulesToReadBy(point.descriptor);
  try {
    return await stageBy(rules, workspace, point, call);
  } catch (error) {
    const problem = toCairnError(error);
    if (rules !== null || !isTooLong(problem)) throw error;
    call.onWarning?.(
      `what the ignore files (.cairnignore) hide is in the point ${id.slice(0, 8)} too, as they are too long to be recorded: ${problem.message}`,
    );
    return stageBy({ excludes: wanted.exclude, files: [] }, workspace, point, call);
  }
}

async function stageBy(
  rules: IgnoreRecord | null,
  workspace: Workspace,
  point: Point,
  call: SealCall,
): Promise<Staged> {
  const { descriptor } = point;
  const parent = parentOf(workspace, point);
  const request = stageRequest(
    workspace,
    { ...call, exclude: descriptor.rules.exclude, message: descriptor.message },
    { rules, head: parent, id: descriptor.save_point_id },
  );
  let staged: StagedContent | undefined;
  try {
    staged = await workspace.engine.stage({
      ...request,
      passesLongRules: true,
      root: Buffer.from(treePlace(workspace.points, point)),
      recordedRoot: workspace.found.recordedFolder ?? workspace.root,
      labels: descriptor.labels,
      ...heldAt(workspace.points, point),
    });
    requireAsMade(workspace, point, staged);
    warnOfLongRules(staged.scan.notes.longRules, { ...descriptor, ...call });
    const { settled, discard } = staged;
    const seal = sealOf(point, staged, { parent, rules });
    return { seal, file: encodeSealFile(seal), settled, discard };
  } catch (error) {
    // Nothing of it goes into the stat cache: what it has is not looked at again.
    await staged?.discard();
    throw error;
  }
}

/** What nobody could read as rules when the tree was taken keeps nobody from the point: it hides nothing. */
function warnOfLongRules(
  directories: readonly Uint8Array[],
  { save_point_id: id, onWarning }: Pick<Descriptor, "save_point_id"> & Pick<WorkspaceCall, "onWarning">,
): void {
  if (directories.length === 0) return;
  const names = listedNames(directories.map((each) => printablePath(joinPath(each, Buffer.from(IGNORE_FILE)))));
  onWarning?.(
    `${names}: more than ${MAX_IGNORE_FILE_BYTES} bytes are not read as ignore rules, so the point ${id.slice(0, 8)} has what they may hide too`,
  );
}

/**
 * Takes back what a sealing left in the store that ended before its commit. A link that names no point is dropped: what
 * it meant costs room only. For the lock's holder.
 */
export async function recoverSeal(workspace: Workspace): Promise<null> {
  const { journal } = workspace.found.paths;
  const left = readSealIntent(journal);
  if (left === null) return null;
  if (left.id !== null) await discardOthers(workspace, left.id);
  removeIntentLink(journal, SEAL_JOURNAL);
  return null;
}

/** Removes the snapshots with a point's mark but for the one that its seal names. */
async function discardOthers({ points, engine }: Workspace, id: SavePointId): Promise<void> {
  const own = ownSnapshot(points, id);
  if (own !== undefined) await engine.discard([id], own);
}

/** Undefined where a snapshot with a point's mark may be what gives the point back: it is damaged, or any that is may be it. */
function ownSnapshot(points: Points, id: SavePointId): string | null | undefined {
  try {
    const point = points.byId(id);
    if (point === null) return points.list().damaged.length === 0 ? null : undefined;
    return point.sealed ? (point.descriptor.content.snapshot ?? undefined) : null;
  } catch (error) {
    if (toCairnError(error).code === "damaged") return undefined;
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
    { rules: rulesToReadBy(descriptor), head: null, id: descriptor.save_point_id },
  );
  const looked = await workspace.engine.look({
    ...request,
    passesLongRules: true,
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

function parentOf(workspace: Workspace, { descriptor }: Point): Point | null {
  const parent = workspace.byId(descriptor.parent_id);
  return parent?.sealed === true ? parent : null;
}

function sealOf(
  point: Point,
  staged: StagedContent,
  { parent, rules }: { parent: Point | null; rules: IgnoreRecord | null },
): SealFile {
  const { descriptor } = point;
  const { tree, snapshot_tree: snapshotTree, snapshot } = staged.content as unknown as SealFile["content"];
  const read = sealedStateOf(staged, {
    exclude: descriptor.rules.exclude,
    rules,
    unchanged: descriptor.unchanged || isUnchanged(parent, staged.scan, rootOfContent(descriptor.content)),
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
