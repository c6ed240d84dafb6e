import { existsSync, statSync } from "node:fs";
import { CairnError, cannotBeWritten, toCairnError } from "../errors.ts";
import { plural } from "../formats/sizes.ts";
import { isSubvolume } from "../fs/btrfs.ts";
import { printablePath, shellPath } from "../fs/safe-path.ts";
import type { SavePointId } from "../ids.ts";
import type { ForwardTarget } from "../repository/transfer/forward.ts";
import { isTooLong } from "./descriptor-file.ts";
import { dropOldTrees, heldTreeProblem, holdsMore, keptTrees, ownerOfTree, treePlace } from "./held-trees.ts";
import type { Point } from "./point-files.ts";
import type { Points } from "./points.ts";
import { leftOutOfPoint, savedWithout } from "./record-point.ts";
import { sealPoint } from "./seal-point.ts";
import type { Workspace, WorkspaceCall } from "./workspace.ts";

/** Which points are sealed, and when: before whatever needs their digests or contents. */

/** A point that cannot be sealed, and why; id null: any that is not sealed. */
export interface SealProblem {
  id: SavePointId | null;
  problem: CairnError;
}

/** Whether it is the point that cannot be sealed, now and later; other problems pass. */
export function isAboutThePoint({ code }: CairnError): boolean {
  return code === "damaged" || code === "newer_version";
}

export interface SealCall extends WorkspaceCall {
  /** another repository, which gets what the seal of this point stores anew too */
  forward?: { readonly point: SavePointId; readonly to: ForwardTarget } | undefined;
}

export interface SealedPending {
  sealed: number;
  /** what cannot be sealed stays as it is and keeps nobody from the others */
  problems: SealProblem[];
}

/**
 * Seals every point that is not, oldest first; what is damaged, or cannot be recorded, is passed over and said. For the holder of the
 * workspace's lock. Throws what is not about one point, e.g. `no_space`.
 */
export async function sealPending(
  workspace: Workspace,
  call: SealCall,
  sequences: readonly number[] = unsealed(workspace),
): Promise<SealedPending> {
  const done: SealedPending = { sealed: 0, problems: [] };
  const inPart: Point[] = [];
  // Of points that share one: until the next seal, which finds out whether all of them are sealed.
  const shared = sequences.flatMap((each) => {
    const owner = ownerOfTree(workspace.points, each);
    return owner === null || owner === each ? [] : [owner];
  });
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
      await dropOldTrees(workspace.points, {
        keep,
        newest: sequence,
        // One more than there came, so that what an earlier call left goes too.
        most: 2,
        lookBack: FEW_POINTS,
        needed: shared,
        onWarning: call.onWarning,
      });
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

/** What the seals of points lack, and what to do about it; null where they have everything. For a person. */
export function whatIsHeldOnly(
  inPart: readonly Point[],
  { control, folder }: { control: string; folder: Buffer },
): string | null {
  const [first] = inPart;
  const lacking = first === undefined ? undefined : leftOutOfPoint(first.descriptor).entries[0];
  if (first === undefined || lacking === undefined) return null;
  const { omitted, omitted_count: unread, labels, save_point_id: id } = first.descriptor;
  const count = unread + savedWithout(labels).length;
  const others = inPart.length === 1 ? "" : `, and likewise of ${inPart.length - 1} more`;
  const { uid, gid } = statSync(control);
  // As their owner who may read everything: what root writes there the owner could not read.
  const way =
    omitted[0]?.reason === "EACCES" || omitted[0]?.reason === "EPERM"
      ? `; sealed whole with: sudo setpriv --reuid=${uid} --regid=${gid} --init-groups --reset-env --inh-caps=+dac_read_search --ambient-caps=+dac_read_search cairn -C ${shellPath(folder)} seal`
      : "";
  return `${plural(count, "entry")} of the point ${id.slice(0, 8)} could not be read (${printablePath(lacking.path)}: ${lacking.detail})${others}; the held trees have them, which stay, and from which restore and undo with --method exchange give them back${way}`;
}

/**
 * For calls that need digests or contents: seals what is not, under the lock, when there is anything. Where there is
 * no room for that, or nothing may be written, the call goes on with what is sealed: it may be the one that makes room,
 * or that gets out what a file system still gives.
 */
export async function ensureSealed(workspace: Workspace, call: SealCall): Promise<SealedPending> {
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
  call: SealCall,
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

/**
 * Seals as {@link sealPending} does, and also names the points whose tree is gone, which only their descriptors tell. What
 * is sealed in part is sealed anew where this user can read more.
 */
export async function sealAll(workspace: Workspace, call: WorkspaceCall): Promise<SealedPending> {
  const open = workspace.points.list().points.filter((each) => !each.sealed || holdsMore(workspace.points, each));
  const done = await sealPending(workspace, call, open.map(({ sequence }) => sequence).toReversed());
  // Also what earlier calls were killed in, or left for later.
  // Where anything was sealed it is told already that the policy cannot be read.
  const keep = keptTrees(workspace.found.control, done.sealed > 0 ? undefined : call.onWarning);
  await dropOldTrees(workspace.points, { keep, onWarning: call.onWarning });
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
    const { seal, descriptor, tree } = points.pathsOf(sequence);
    if (existsSync(seal)) {
      isOlder = true;
      if (++inARow === FEW_POINTS) break;
    } else if (existsSync(tree) && existsSync(descriptor) && (!isOlder || isLeftBehind(points, sequence))) {
      open.push(sequence);
      inARow = 0;
    }
  }
  return open.reverse();
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
