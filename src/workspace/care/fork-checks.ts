import fs from "node:fs";
import type { GuardName } from "../../contract/words.ts";
import { advice, CairnError, call as callOf, option, toCairnError } from "../../errors.ts";
import { rawPath } from "../../formats/records/record.ts";
import { plural } from "../../formats/sizes.ts";
import { STAGING_NAME } from "../../archive/scan/task.ts";
import { type IgnoreRecord, NO_RULES } from "../../fs/ignore.ts";
import { parentOf } from "../../fs/linux/exchange-folders.ts";
import { boundSockets, findHolders, mountedElsewhere } from "../../fs/linux/holders.ts";
import { filesystemUuid, isMountPoint, mountsInside, readMounts } from "../../fs/linux/mounts.ts";
import { openDirectory } from "../../fs/linux/syscalls.ts";
import {
  isAtOrBelow,
  listedNames,
  printablePath,
  quotedPath,
  releaseLine,
  shellPath,
} from "../../fs/paths/safe-path.ts";
import type { Workspace, WorkspaceCall } from "../open/workspace.ts";
import { type FoundWorkspace, isOtherFolder } from "../place/find-workspace.ts";
import { listRemovals } from "../place/partials.ts";
import { isOnDisk } from "../place/mounted.ts";
import { listRegistered, ownInside } from "../place/registry.ts";
import { type LeftOutEntry, leftOutOf, leftOutOfPoint } from "../points/left-out.ts";
import type { Point } from "../points/point-files.ts";
import { scanRequest } from "../save/scan-request.ts";
import { requireIdle } from "./going.ts";

/** Looks whether a fork's folder may be removed. Changes nothing. */

export interface RemoveInput extends WorkspaceCall {
  /** `ignored`: entries that ignore rules hide are saved and removed, too */
  allow?: readonly GuardName[] | undefined;
}

/** The search of `/proc` may take so long: a process that is missed keeps working in a removed folder. */
const HOLDERS_BUDGET_MS = 5_000;

export function refusal(folder: Buffer, why: string, more: ConstructorParameters<typeof CairnError>[2]): CairnError {
  return new CairnError("refused", `the fork ${printablePath(folder)} is not removed: ${why}`, more);
}

/** Opens the fork's folder. Throws `refused` for anything else that lies at its path. */
export function openFork(found: FoundWorkspace): number {
  const { folder, workspace } = found;
  const shown = shellPath(folder);
  const uuid = filesystemUuid(folder);
  const isElsewhere = uuid !== null && workspace.filesystem_uuid !== undefined && uuid !== workspace.filesystem_uuid;
  const isDirectory = fs.lstatSync(folder).isDirectory();
  if (isDirectory && !isElsewhere && !isOtherFolder(found)) return openDirectory(folder);
  throw refusal(folder, `another ${isDirectory ? "folder" : "entry"} lies at its path, not the fork that Cairn made`, {
    hint: advice`move it away, and ${callOf(`fork --remove ${shown}`, "removeFork", printablePath(folder))} forgets the fork; or, if it has the fork's files: ${callOf(`save ${shown}`, "save")} takes it as the fork's folder, then try again`,
  });
}

/** Throws if something in the folder is not the fork's, or if the folder cannot be moved. */
export function requireRemovable(found: FoundWorkspace): void {
  const { folder } = found;
  const mounts = readMounts();
  const unmount = "unmount it, then try again";
  if (isMountPoint(folder, mounts))
    throw refusal(folder, "a file system is mounted at the folder itself", {
      hint: advice`to end that workspace and keep the folder: ${releaseLine(folder)}`,
    });
  const inside = mountsInside(folder, mounts).map(({ mountPoint }) => printablePath(mountPoint));
  if (inside.length > 0) throw refusal(folder, `a file system is mounted at ${listedNames(inside)}`, { hint: unmount });
  const [elsewhere] = mountedElsewhere(folder, mounts);
  if (elsewhere !== undefined)
    throw refusal(folder, `the folder is also mounted at ${printablePath(elsewhere)}`, { hint: unmount });
  const others = listRegistered().flatMap(({ registration }) =>
    registration === null ? [] : [Buffer.from(rawPath(registration))],
  );
  const below = others.find((each) => isAtOrBelow(each, folder) && !each.equals(folder));
  if (below !== undefined)
    throw refusal(folder, `the folder ${printablePath(below)} in it is a workspace of its own`, {
      hint: advice`remove or release that workspace first: ${releaseLine(below)}`,
    });
  const [own] = ownInside(folder);
  if (own !== undefined)
    throw refusal(folder, `${printablePath(own)} in it holds Cairn's own files, which no point has`, {
      hint: "move that folder to another place, then try again",
    });
  requireIdle(found);
  try {
    fs.accessSync(parentOf(folder), fs.constants.W_OK | fs.constants.X_OK);
  } catch (error) {
    throw toCairnError(error, `remove ${printablePath(folder)} from its parent folder`);
  }
}

/** Throws `busy` if a removal of the fork is under way, which may have moved its folder. */
export function requireNotGoing({ control, folder, workspace }: FoundWorkspace): void {
  if (!listRemovals(control).records.some(({ record }) => record.workspace.id === workspace.id)) return;
  throw new CairnError("busy", `the fork ${printablePath(folder)} is being removed`, {
    hint: "wait until that has ended; if it was interrupted, the warnings of this command say what prevents its end",
  });
}

/** Throws `refused` if the folder is missing because its disk is not mounted. */
export function requireDisk({ folder, workspace }: FoundWorkspace): void {
  if (isOnDisk(folder, workspace)) return;
  throw refusal(folder, "its folder is missing, and its disk is not mounted", {
    hint: advice`mount the fork's disk, then try again; or end the workspace without its folder: ${releaseLine(folder)}`,
  });
}

/**
 * Throws `busy` if a process works in the folder, which has the name `shown` for people. False if there are processes
 * that this user cannot see.
 */
export function requireUnused(folder: Buffer, shown: Buffer): boolean {
  const { holders, unknown } = findHolders(folder, { budgetMs: HOLDERS_BUDGET_MS });
  const [first] = holders;
  const [socket] = boundSockets(folder);
  if (first === undefined && socket === undefined) return unknown.length === 0;
  const user =
    first === undefined
      ? `a program listens on the socket ${printablePath(socket!)}`
      : `process ${first.pid} (${first.command}) has the folder, or a file in it, open`;
  throw new CairnError("busy", `the fork ${printablePath(shown)} is not removed: ${user}`, {
    hint: "end that program, or let it leave the folder, then try again",
    ...(first === undefined ? {} : { details: { pid: first.pid } }),
  });
}

/**
 * Looks at every entry of a fork, whose path is `shown` for people, but reads no file. Throws `refused` if a point would
 * not have all of them.
 */
export async function requireAllSaved(other: Workspace, shown: Buffer, call: RemoveInput): Promise<void> {
  const unread = { heldAt: 0, isLater: false };
  const request = scanRequest(other, {}, { unread, passesLongRules: true, rules: rulesOf(call) });
  requireAllIn(await other.engine.lookAt(request, call), shown, call);
}

/** Throws `refused` if a point of a scanned fork would not have all of its entries. */
export function requireAllIn(scan: Parameters<typeof leftOutOf>[0], shown: Buffer, call: RemoveInput): void {
  requireNothingIgnored(shown, scan.notes, call);
  requireComplete(shown, leftOutOf(scan).filter(isLasting));
}

/** The rules by which a fork is saved; null: the present ones. */
export function rulesOf(call: RemoveInput): IgnoreRecord | null {
  return isIncluding(call) ? NO_RULES : null;
}

function isIncluding({ allow }: RemoveInput): boolean {
  return allow?.includes("ignored") === true;
}

interface Hidden {
  /** paths in latin1 */
  ignored: readonly string[];
  ignoredCount: number;
}

/** Throws `refused` for entries that ignore rules hide. */
export function requireNothingIgnored(folder: Buffer, { ignored, ignoredCount }: Hidden, call: RemoveInput): void {
  if (ignoredCount === 0 || isIncluding(call)) return;
  const names = ignored.map((each) => printablePath(Buffer.from(each, "latin1"))).slice(0, ignoredCount);
  throw refusal(
    folder,
    `ignore rules keep ${plural(ignoredCount, "entry")} out of every point: ${listedNames(names)}`,
    {
      hint: advice`move or remove what you do not need; or save and remove it with the rest: ${option({ allow: ["ignored"] })}`,
      details: { guard: "ignored", ignored: names, ignored_count: ignoredCount },
    },
  );
}

/** Entries that change while they are read may be at rest when they are read again. */
function isLasting({ reason }: LeftOutEntry): boolean {
  return reason !== "changing" && reason !== "vanished";
}

interface Saved {
  made: boolean;
  leftOut: readonly LeftOutEntry[];
  /** present if the folder was read */
  hidden?: Hidden;
}

/**
 * Throws `refused` if a fork's point lacks entries for good. `saved`: the save that made or found the point. Returns
 * false if entries changed while they were read.
 */
export function isWhole(folder: Buffer, { descriptor }: Point, saved?: Saved): boolean {
  // A save that read the folder and found it unchanged knows better than the point, which may be old.
  const isReadAgain = saved?.hidden !== undefined && !saved.made;
  const lacking = [...(saved?.leftOut ?? []), ...(isReadAgain ? [] : leftOutOfPoint(descriptor).entries)];
  requireComplete(folder, lacking.filter(isLasting));
  return lacking.length === 0;
}

function requireComplete(folder: Buffer, leftOut: readonly LeftOutEntry[]): void {
  const [first] = leftOut;
  if (first === undefined) return;
  const more = leftOut.length > 1 ? `, and ${leftOut.length - 1} more` : "";
  throw refusal(folder, `a point would not have ${quotedPath(first.path)} (${first.detail})${more}`, {
    hint: "remove these entries yourself, or try again as a user who may read them",
    details: { left_out: leftOut.slice(0, 100).map(({ path: each }) => printablePath(each)) },
  });
}

/** Throws `refused` for files that a restore kept in the folder because they changed meanwhile. No scan enters them. */
export function requireNothingKept(folder: Buffer): void {
  const kept = fs.readdirSync(folder).find((name) => STAGING_NAME.test(name));
  if (kept === undefined) return;
  throw refusal(folder, `${kept} in it has files that a restore kept, and no point has them`, {
    hint: "move them to another place, then try again",
  });
}
