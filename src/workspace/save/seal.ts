import { append } from "../../append.ts";
import { existsSync, lstatSync, rmSync, statSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { CairnError, cannotBeWritten, toCairnError } from "../../errors.ts";
import { plural } from "../../formats/sizes.ts";
import { printablePath, shellPath } from "../../fs/paths/safe-path.ts";
import type { SavePointId } from "../../ids.ts";
import { encodeSealFile, isTooLong, type Point, rulesToReadBy } from "../points/point-files.ts";
import {
  dropOldTrees,
  canReadMore,
  heldTreeProblem,
  holdsMore,
  requireAsMade,
  keptTrees,
  treePlace,
} from "../points/held-trees.ts";
import type { Points } from "../points/points.ts";
import type { SaveInput } from "./record-point.ts";
import { heldRequest } from "./scan-request.ts";
import { leftOutOfPoint, savedWithout, warnOfRules } from "../points/left-out.ts";
import type { Workspace, WorkspaceCall } from "../open/workspace.ts";
import type { StagedContent } from "../store/engine.ts";
import type { TreeSource } from "../../repository/trees/tree-source.ts";
import { presentSource } from "../../archive/scan/present-source.ts";
import { failpoint } from "../../failpoint.ts";
import { removeLeftovers } from "../../fs/work-directory.ts";
import { journaled } from "../open/unfinished-work.ts";
import { saveOf, sealOf, stillDatabases, warnOfLongRules } from "../open/describe.ts";
import { noteTimesOfTree } from "../points/change-times.ts";

/** Seals points: one point if a call needs its digests or contents; the others on request or when the process is idle. */

/** A point that cannot be sealed, and why; id null: every unsealed point. */
export interface SealProblem {
  id: SavePointId | null;
  problem: CairnError;
}

/** Tells if the point itself can never be sealed. Other problems are temporary. */
export function isAboutThePoint({ code }: CairnError): boolean {
  return code === "damaged" || code === "newer_version";
}

interface SealCall extends WorkspaceCall {
  /** another repository, which also gets the content that sealing this point newly stores */
  forward?: { readonly point: SavePointId; readonly to: NonNullable<SaveInput["forward"]> } | undefined;
}

interface SealedPoints {
  sealed: number;
  /** points that could not be sealed; the other points are sealed */
  problems: SealProblem[];
}

/**
 * Seals points in the given order. Reports a point that is damaged or cannot be recorded, and goes on. Throws any other
 * problem, such as `no_space`. The caller holds the workspace's lock.
 */
export async function sealPoints(
  workspace: Workspace,
  call: SealCall,
  sequences: Iterable<number>,
): Promise<SealedPoints> {
  const done: SealedPoints = { sealed: 0, problems: [] };
  const inPart: Point[] = [];
  let keep: number | undefined;
  for (const sequence of sequences) {
    let id: SavePointId | null = null;
    try {
      const point = workspace.points.read(sequence);
      id = point.descriptor.save_point_id;
      const forward = call.forward?.point === id ? call.forward.to : undefined;
      const sealed = await sealPoint(workspace, point, { ...call, forward });
      if (holdsMore(workspace.points, sealed)) inPart.push(sealed);
      if (sealed === point) continue;
      done.sealed++;
      keep ??= keptTrees(workspace.found.control, call.onWarning);
      // At most two trees, one more than was added, so that leftovers of earlier calls are removed too.
      await dropOldTrees(workspace.points, { keep, most: 2, lookBack: FEW_POINTS, onWarning: call.onWarning });
    } catch (error) {
      const problem = toCairnError(error);
      if (!isAboutThePoint(problem) && !isTooLong(problem)) throw problem;
      done.problems.push({ id, problem });
      call.onWarning?.(`the point ${id ?? sequence} cannot be sealed: ${problem.message}`);
    }
  }
  const { control, folder } = workspace.found;
  const heldOnly = whatIsHeldOnly(inPart, { control: control.root, folder });
  if (heldOnly !== null) call.onWarning?.(heldOnly);
  return done;
}

/** Describes the entries that seals of points lack, and the remedy; null if the seals are complete. For people. */
export function whatIsHeldOnly(
  inPart: readonly Point[],
  { control, folder }: { control: string; folder: Buffer },
): string | null {
  const [first] = inPart;
  const lacking = first === undefined ? undefined : leftOutOfPoint(first.descriptor).entries[0];
  if (first === undefined || lacking === undefined) return null;
  const { omitted, omitted_count: unread, labels, save_point_id: id } = first.descriptor;
  const count = unread + savedWithout(labels).length;
  const others = inPart.length === 1 ? "" : `, and entries of ${inPart.length - 1} more points`;
  const { uid, gid } = statSync(control);
  // The command runs as their owner with the right to read everything: the owner could not read files that root writes.
  const way =
    omitted[0]?.reason === "EACCES" || omitted[0]?.reason === "EPERM"
      ? `; to seal everything: sudo setpriv --reuid=${uid} --regid=${gid} --init-groups --reset-env --inh-caps=+dac_read_search --ambient-caps=+dac_read_search cairn -C ${shellPath(folder)} seal`
      : "";
  return `${plural(count, "entry")} of the point ${id.slice(0, 8)} could not be read (${printablePath(lacking.path)}: ${lacking.detail})${others}; they are in the points' clones, which stay; restore and undo with --method exchange bring them back${way}`;
}

/**
 * Seals points under the lock, for calls that need their digests or contents; default: all unsealed points. Between two
 * points a waiting process gets the lock. If nothing can be written, the call goes on with the sealed points: it may be
 * the one that frees space.
 */
export async function ensureSealed(
  workspace: Workspace,
  call: SealCall,
  sequences: readonly number[] = unsealed(workspace),
): Promise<SealedPoints> {
  const done: SealedPoints = { sealed: 0, problems: [] };
  const left = [...sequences];
  try {
    while (left.length > 0) {
      workspace.engine.prepare();
      {
        using _lock = await workspace.lock("seal", call);
        const { sealed, problems } = await sealPoints(workspace, call, untilWanted(workspace, left));
        done.sealed += sealed;
        append(done.problems, problems);
      }
      if (left.length > 0) await sleep(MAKE_WAY_MS);
    }
  } catch (error) {
    const problem = toCairnError(error);
    if (!cannotBeWritten(problem)) throw problem;
    call.onWarning?.(`not every point could be sealed: ${problem.message}`);
    done.problems.push({ id: null, problem });
  }
  return done;
}

/** A process that waits for a lock tries again within less than this. */
const MAKE_WAY_MS = 100;

/** Takes points off a list until another process begins to wait for the lock. */
function* untilWanted(workspace: Workspace, left: number[]): Generator<number> {
  const before = wantedAt(workspace);
  for (let next = left.shift(); next !== undefined; next = left.shift()) {
    yield next;
    if (wantedAt(workspace) !== before) return;
  }
}

/** Returns when a process last began to wait for the workspace's lock, in milliseconds since 1970. */
export function wantedAt({ found }: Workspace): number | undefined {
  return lstatSync(found.paths.wanted, { throwIfNoEntry: false })?.mtimeMs;
}

/** A call that seals points looks for trees to remove among this many points. */
const FEW_POINTS = 64;

/**
 * Runs `work`. If `work` needs an unsealed point, seals that point and runs `work` again. `work` gets the points that
 * could not be sealed.
 */
export async function withSealed<T>(
  workspace: Workspace,
  call: SealCall,
  work: (problems: readonly SealProblem[]) => Promise<T>,
): Promise<T> {
  const problems: SealProblem[] = [];
  const tried = new Set<string>();
  for (;;) {
    try {
      return await work(problems);
    } catch (error) {
      const { unsealed: id, workspace: name } = toCairnError(error).details ?? {};
      if (typeof id !== "string") throw error;
      const point = workspace.points.byId(id as SavePointId);
      if (point === null && !tried.has(id) && (await sealInSibling(workspace, call, { id, name }))) {
        tried.add(id);
        continue;
      }
      const problem = point === null ? null : whyUnsealed(workspace.points, point, problems);
      if (problem !== null) throw problem;
      if (point === null || tried.has(id)) throw error;
      tried.add(id);
      append(problems, (await ensureSealed(workspace, call, [point.sequence])).problems);
      workspace.points.refresh();
    }
  }
}

/** Returns a point of the workspace, sealed. Seals it if needed. */
export async function sealedPoint(workspace: Workspace, id: SavePointId, call: WorkspaceCall): Promise<Point> {
  return await withSealed(workspace, call, async () => {
    const point = workspace.byId(id);
    if (point === null) throw new CairnError("not_found", `the point ${id} is gone`);
    // Throws an error that has the point sealed.
    if (!point.sealed) await workspace.source(point);
    return point;
  });
}

/** Seals a point of another workspace of the control directory. False if there is none. */
async function sealInSibling(
  workspace: Workspace,
  call: SealCall,
  { id, name }: { id: string; name: unknown },
): Promise<boolean> {
  await using other = typeof name === "string" ? workspace.sibling(name) : null;
  if (other === null) return false;
  const point = other.points.byId(id as SavePointId);
  if (point === null) return false;
  const { problems } = await ensureSealed(other, call, [point.sequence]);
  if (problems[0] !== undefined) throw problems[0].problem;
  return true;
}

/**
 * Seals every point as {@link sealPoints} does, also points whose tree is missing, which then are reported. Seals a
 * partly sealed point again if this user can read more.
 */
export async function sealAll(workspace: Workspace, call: WorkspaceCall): Promise<SealedPoints> {
  const open = workspace.points.list().points.filter((each) => !each.sealed || holdsMore(workspace.points, each));
  const done = await sealPoints(workspace, call, open.map(({ sequence }) => sequence).toReversed());
  // Trees that earlier calls left are removed too. If a point was sealed, the warning about an unreadable policy was
  // already given.
  const keep = keptTrees(workspace.found.control, done.sealed > 0 ? undefined : call.onWarning);
  await dropOldTrees(workspace.points, { keep, onWarning: call.onWarning });
  return done;
}

/** Tells why a point cannot be sealed, without reading its tree; null if no reason is known. */
export function whyUnsealed(points: Points, point: Point, problems: readonly SealProblem[]): CairnError | null {
  const id = point.descriptor.save_point_id;
  const known =
    heldTreeProblem(points, point) ?? problems.find((each) => each.id === id || each.id === null)?.problem ?? null;
  return known !== null && cannotBeWritten(known) ? notReadYet(points, point, known) : known;
}

function notReadYet(points: Points, point: Point, why: CairnError): CairnError {
  const tree = printablePath(Buffer.from(treePlace(points, point)));
  return new CairnError(why.code, `the point ${point.descriptor.save_point_id} is not sealed yet: ${why.message}`, {
    hint: `its content lies in ${tree}; you may read it there, but do not change anything`,
    cause: why,
  });
}

/** Returns the numbers of finished points whose content is only in a held tree, ascending. Reads no descriptor. */
export function unsealed({ points, found }: Workspace): number[] {
  if (!existsSync(found.paths.holds)) return [];
  return points.sequences().filter((sequence) => {
    const { seal, descriptor, tree } = points.pathsOf(sequence);
    return !existsSync(seal) && existsSync(tree) && existsSync(descriptor);
  });
}

/** Returns the ids of unsealed points whose tree is missing or replaced, ascending by number. */
export function missingPoints({ points, found }: Workspace): SavePointId[] {
  if (!existsSync(found.paths.holds)) return [];
  return points.sequences().flatMap((sequence) => {
    if (existsSync(points.pathsOf(sequence).seal)) return [];
    try {
      const point = points.read(sequence);
      const isMissing = !point.sealed && heldTreeProblem(points, point) !== null;
      return isMissing ? [point.descriptor.save_point_id] : [];
    } catch {
      // `history` and `doctor` name a record that cannot be read.
      return [];
    }
  });
}

/**
 * Seals a point: reads its held tree, stores new content, records digests, counts and ids beside the descriptor. A tree
 * that this user could read completely is then not needed any more. Returns the point unchanged if nothing is gained.
 * - Intent: the record. Stage: content and snapshot in the store.
 * - Commit ●: `seal.json` gets its name. A kill around it leaves a snapshot with the point's mark, which recovery or
 * the next attempt takes back.
 */
export async function sealPoint(workspace: Workspace, sealedOrNot: Point, call: PointCall): Promise<Point> {
  const isAgain = sealedOrNot.sealed;
  if (isAgain && !canReadMore(workspace.points, sealedOrNot)) return sealedOrNot;
  const point: Point = { ...sealedOrNot, descriptor: sealedOrNot.made, sealed: false };
  const { descriptor, sequence } = point;
  const { root, origins, verification } = workspace.points.pathsOf(sequence);
  const problem = heldTreeProblem(workspace.points, point);
  if (problem !== null) throw problem;
  // Leftovers of a killed attempt.
  removeLeftovers(root, { exclusive: true });
  await SEAL.recover(workspace, {});
  const record = workspace.unfinished("seal");
  record.begin({ id: descriptor.save_point_id });
  failpoint("seal.intent");
  let staged: Staged;
  try {
    staged = await stageByReading(workspace, point, call);
  } catch (error) {
    record.end();
    throw error;
  }
  failpoint("seal.staged");
  if (isAgain && staged.omitted >= sealedOrNot.descriptor.omitted_count) {
    await staged.discard?.();
    record.end();
    return sealedOrNot;
  }
  // Removed before the commit: later no call would look for the file.
  rmSync(origins, { force: true });
  // The record is about the earlier seal.
  if (isAgain) rmSync(verification, { force: true });
  failpoint("seal.origins-removed");
  const sealed = workspace.points.seal(sequence, staged.file);
  failpoint("seal.committed");
  if (isAgain) await discardOthers(workspace, descriptor.save_point_id);
  record.end();
  await staged.settled?.();
  return sealed;
}

interface Staged {
  /** entries that could not be read */
  omitted: number;
  /** the bytes of `seal.json` */
  file: Uint8Array;
  settled?: () => Promise<void>;
  discard?: () => Promise<void>;
}

type PointCall = Pick<SaveInput, keyof WorkspaceCall | "forward">;

/** Stages a point for its seal. Rules too long to be recorded hide nothing: the point then has more entries. */
async function stageByReading(workspace: Workspace, point: Point, call: PointCall): Promise<Staged> {
  const { save_point_id: id, rules: wanted } = point.descriptor;
  const rules = rulesToReadBy(point.descriptor);
  try {
    return await stageBy(rules, workspace, point, call);
  } catch (error) {
    const problem = toCairnError(error);
    if (rules !== null || !isTooLong(problem)) throw error;
    call.onWarning?.(
      `the ignore files (.cairnignore) are too long to be recorded, so the point ${id.slice(0, 8)} also has the files that they ignore: ${problem.message}`,
    );
    return stageBy({ excludes: wanted.exclude, files: [] }, workspace, point, call);
  }
}

async function stageBy(
  rules: ReturnType<typeof rulesToReadBy>,
  workspace: Workspace,
  point: Point,
  call: PointCall,
): Promise<Staged> {
  const { descriptor } = point;
  const before = workspace.byId(descriptor.parent_id);
  const parent = before?.sealed === true ? before : null;
  const recordedRoot = workspace.found.recordedFolder ?? workspace.root;
  let staged: StagedContent | undefined;
  try {
    staged = await workspace.engine.stage({
      ...call,
      scan: heldRequest(workspace, point, { rules }),
      recordedRoot,
      labels: descriptor.labels,
      databases: { folders: [recordedRoot, workspace.root], still: stillDatabases(descriptor), ...saveOf(descriptor) },
      head: parent?.descriptor ?? null,
      pointId: descriptor.save_point_id,
    });
    requireAsMade(workspace.points, point, staged);
    warnOfRules(staged.scan, call);
    warnOfLongRules(staged.scan.notes.longRules, { ...descriptor, ...call });
    const { settled, discard } = staged;
    const seal = sealOf(point, staged, { parent, rules });
    noteTimesOfTree(workspace, point, { scan: staged.scan, parent });
    return { omitted: seal.omitted_count, file: encodeSealFile(seal), settled, discard };
  } catch (error) {
    // The staged files do not go into the stat cache: the tree is not scanned again.
    await staged?.discard();
    throw error;
  }
}

export const SEAL = journaled({
  kind: "seal",
  operation: "seal",
  where: "`journal/seal.json`",
  steps: [
    "the record: the id of the point",
    "the point's clone is read, its content and a snapshot are stored",
    "● `seal.json` gets its name beside the descriptor",
    "the record is removed",
  ],
  before: "removes the snapshot with the point's mark; the next seal reads the clone again",
  after: "removes other snapshots with the point's mark",
  changesFolder: false,
  unreadable: () => "the next seal reads the point again",
  isCommitted: () => false,
  async takeBack(workspace, { id }) {
    await discardOthers(workspace, id);
    workspace.unfinished("seal").end();
    return null;
  },
});

/** Removes the snapshots that have a point's mark, except the one that its seal names. */
async function discardOthers({ points, engine }: Workspace, id: SavePointId): Promise<void> {
  const own = ownSnapshot(points, id);
  if (own !== undefined) await engine.discard([id], new Map([[id, own]]));
}

/** Returns the snapshot to keep; null if none. Undefined if any may be needed to rebuild a damaged point. */
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

/** Reads the tree of a point that cannot be sealed, as a seal would, and stores nothing. The result has no contents. */
export async function readHeld(workspace: Workspace, point: Point, call: WorkspaceCall): Promise<TreeSource> {
  const request = heldRequest(workspace, point, { rules: rulesToReadBy(point.descriptor), reread: true });
  const looked = await workspace.engine.look(request, { ...call, tree: null });
  requireAsMade(workspace.points, point, looked);
  return presentSource(looked.scan);
}
