import fs from "node:fs";
import { changedAfter, momentNow } from "../clones/walk-entries.ts";
import type { RemovedFork, RemoveForkOptions } from "../contract/points.ts";
import { advice, CairnError, call as callOf, reworded, throwIfAborted, toCairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { rawPath } from "../formats/records/record.ts";
import { acquireLock } from "../fs/lock.ts";
import { displayPath, printablePath, releaseLine } from "../fs/paths/safe-path.ts";
import { endRemovals, ForkAside, type ForkRest } from "../workspace/care/fork-aside.ts";
import {
  isWhole,
  openFork,
  refusal,
  type RemoveInput,
  requireAllSaved,
  requireDisk,
  requireNotGoing,
  requireNothingIgnored,
  requireUnused,
  rulesOf,
} from "../workspace/care/fork-checks.ts";
import { deletePoints } from "../workspace/care/release.ts";
import { recoverWorkspace } from "../workspace/open/recovery.ts";
import { Workspace } from "../workspace/open/workspace.ts";
import { type FoundWorkspace, realPathOf, workspaceRef } from "../workspace/place/find-workspace.ts";
import { lockingOf } from "../workspace/place/registry.ts";
import { publicLeftOut } from "../workspace/points/left-out.ts";
import { takeOver } from "../workspace/save/receive.ts";
import { presentOf, savePresent } from "../workspace/save/save.ts";
import { sealedPoint } from "../workspace/save/seal.ts";
import { hasSamePoints, requireGoing, requireShown, type ShownFork, stateOf } from "./fork-plan.ts";
import { COMES_HOME, isTakenAgain, ownForkOf } from "./forks.ts";

interface GoneFork extends ForkRest {
  /** the original's point of the fork's last state */
  point: RemovedFork["save_point_id"];
}

const MOST_ROUNDS = 3;

/**
 * Removes a fork with its folder and its points. A cleanup treats the point of its last state as an undo point.
 * - Look: the folder is the fork's, nothing is mounted in it, no process uses it, and a point can have all of it. A
 * refusal changes nothing. Then the fork's present becomes a point of the original workspace.
 * - Intent: the record. Stage: the folder gets a name beside its path that no program knows. The folder is searched
 * again there, and saved again if it has changed.
 * - Commit ●: the directory of the fork's workspace is renamed. Before that, recovery gives the folder back; later it
 * removes the folder.
 * - The folder is removed, then the record. The record stays if some of the folder has to stay.
 */
export async function removeFork(workspace: Workspace, fork: string, call: RemoveForkOptions): Promise<RemovedFork> {
  const ended = await endRemovals(workspace, call);
  const left = ended.find(({ record, recovery }) => {
    const isNamed = record.workspace.name === fork || realPathOf(fork).equals(rawPath(record.target));
    return isNamed && recovery.outcome === "completed" && !isTakenAgain(workspace, record);
  });
  if (left !== undefined) {
    const { workspace: gone, target, save_point_id: point } = left.record;
    const ref = { ...workspaceRef(workspace.found), ...gone, ...displayPath(rawPath(target)) };
    return { workspace: ref, save_point_id: point, rest: null, left_out: [] };
  }
  const found = ownForkOf(workspace, fork);
  requireNotGoing(found);
  const { point, rest, leftOut } = await removeFound(workspace, found, call);
  return {
    workspace: workspaceRef(found),
    save_point_id: point,
    rest: rest === null ? null : displayPath(rest),
    left_out: leftOut.map(publicLeftOut),
  };
}

async function removeFound(workspace: Workspace, found: FoundWorkspace, call: RemoveInput): Promise<GoneFork> {
  const { folder } = found;
  await using other = new Workspace(found, workspace.parts, workspace.removals);
  if (fs.lstatSync(folder, { throwIfNoEntry: false }) === undefined) return await forgetFork(workspace, other, call);
  const fd = openFork(found);
  try {
    await requireGoing(other, call);
    const shown = await requireShown(other, call);
    const point = await presentOf(workspace, found, { ...call, message: COMES_HOME });
    isWhole(folder, point);
    return await removeSaved(workspace, other, { call, fd, saved: point.descriptor.save_point_id, shown });
  } finally {
    fs.closeSync(fd);
  }
}

interface Removing {
  call: RemoveInput;
  /** the open folder */
  fd: number;
  /** the fork's point of its present */
  saved: RemovedFork["save_point_id"];
  /** the fork as the plan showed it; null without a plan */
  shown: ShownFork | null;
}

async function removeSaved(workspace: Workspace, other: Workspace, removing: Removing): Promise<GoneFork> {
  const { call, fd, saved, shown } = removing;
  const { found } = other;
  using _lock = await other.lock("fork", call);
  await recoverWorkspace(other, call);
  if (shown !== null && !hasSamePoints(other, shown, saved)) await requireShown(other, call);
  let point = await takeOver(workspace, saved, call);
  const aside = ForkAside.begin(found, fd, point);
  let since: bigint | null;
  try {
    aside.move(fd);
    const last = await settle(aside, other, removing);
    since = last.since;
    if (last.point !== saved) {
      point = await takeOver(workspace, last.point, call);
      aside.renew(point);
    }
    throwIfAborted(call.signal);
    using _control = await acquireLock(found.control.lock, lockingOf("fork", call));
    other.requireLock();
    failpoint("fork.releasing");
    await deletePoints(other, call);
  } catch (error) {
    throw aside.isKept ? givenBack(aside, error) : afterRelease(aside, error);
  }
  failpoint("fork.released");
  let late: Buffer | null;
  try {
    // A process that this user cannot see may have had a file open until the commit.
    late = since === null ? null : await changedAfter(aside.place, since);
    if (late === null) return { point, ...(await aside.remove()) };
    aside.end();
  } catch (error) {
    throw afterRelease(aside, error);
  }
  const detail = "a program wrote to it after the last save, so the folder stays: look at it, then remove it";
  return { point, rest: aside.place, leftOut: [{ path: late, reason: "changed_since", detail }] };
}

/**
 * Searches the folder at its new name until it equals the last point and no process uses it. Returns that point, and
 * the moment before the last search if some processes cannot be seen. Throws `busy` if programs go on.
 */
async function settle(
  aside: ForkAside,
  { found, parts, removals }: Workspace,
  { call, fd, saved: before, shown }: Removing,
): Promise<{ point: RemovedFork["save_point_id"]; since: bigint | null }> {
  const { folder } = found;
  await using moved = new Workspace({ ...found, folder: aside.place, recordedFolder: folder }, parts, removals);
  let last = before;
  let used: CairnError | null = null;
  for (let round = 1; round <= MOST_ROUNDS; round++) {
    if (shown !== null && (await stateOf(moved, call)) !== shown.state) await requireShown(moved, call);
    let isAll = true;
    used = null;
    try {
      isAll = requireUnused(aside.place, folder);
    } catch (error) {
      used = toCairnError(error);
      if (used.code !== "busy") throw error;
    }
    const since = isAll ? null : await momentNow();
    const input = { ...call, skipUnchanged: true, message: COMES_HOME };
    const saved = await savePresent(moved, input, rulesOf(call));
    const id = saved.point.descriptor.save_point_id;
    const isAtRest = isWhole(folder, await sealedPoint(moved, id, call), saved);
    // A save that reads the folder knows the ignored entries, too; a clone does not.
    if (saved.hidden === undefined) await requireAllSaved(moved, folder, call);
    else requireNothingIgnored(folder, saved.hidden, call);
    aside.requireSame(fd);
    failpoint("fork.searched");
    if (id === last && isAtRest && used === null) return { point: last, since };
    last = id;
  }
  throw (
    used ??
    new CairnError("busy", `the fork ${printablePath(folder)} is not removed: programs go on writing to it`, {
      hint: "end these programs, then try again",
    })
  );
}

/** Gives the folder back after a failure. Returns the error for the caller. */
function givenBack(aside: ForkAside, error: unknown): CairnError {
  const failed = toCairnError(error);
  const saved = `its last state is also the save point ${aside.record.save_point_id}`;
  try {
    aside.giveBack();
  } catch (why) {
    const { code, message, hint } = toCairnError(why);
    return new CairnError(code, `${failed.message}; ${message}; ${saved}`, { hint, cause: error });
  }
  return reworded(failed, { message: `${failed.message}; the fork stays, and ${saved}` });
}

/** Returns the error of a failure behind the commit: to call again would not help. */
function afterRelease({ record, place }: ForkAside, error: unknown): CairnError {
  const saved = `the fork is released, and its last state is the save point ${record.save_point_id}`;
  const rest = `its folder lies in ${printablePath(place)} and is not removed yet`;
  return new CairnError("incomplete", `${saved}; ${rest}: ${toCairnError(error).message}`, {
    hint: advice`the next command here removes it, for example ${callOf("status")}`,
    cause: error,
  });
}

/**
 * Forgets a fork whose folder is gone or was moved: its newest state becomes a point of the original, then its
 * workspace is removed. A folder that was moved stays, as an ordinary one.
 */
async function forgetFork(workspace: Workspace, other: Workspace, call: RemoveInput): Promise<GoneFork> {
  const { control, folder } = other.found;
  requireDisk(other.found);
  const last = other.byId(other.state().head) ?? other.points.latest();
  if (last === null)
    throw refusal(folder, "its folder is missing, and it has no point that could be kept", {
      hint: advice`to end the workspace: ${releaseLine(folder)}`,
    });
  const { descriptor } = await sealedPoint(other, last.descriptor.save_point_id, call);
  using _lock = await other.lock("fork", call);
  await requireShown(other, call);
  if (fs.lstatSync(folder, { throwIfNoEntry: false }) !== undefined)
    throw new CairnError("conflict", `${printablePath(folder)} was missing, and is there again`, { hint: "try again" });
  const point = await takeOver(workspace, descriptor.save_point_id, call);
  using _control = await acquireLock(control.lock, lockingOf("fork", call));
  other.requireLock();
  await deletePoints(other, call);
  call.onWarning?.(
    `${printablePath(folder)} was missing, so the fork's newest save point was kept; a folder that was moved stays where it is, as an ordinary one`,
  );
  return { point, rest: null, leftOut: [] };
}
