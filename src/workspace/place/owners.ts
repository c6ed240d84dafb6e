import {
  accessSync,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readFileSync,
  realpathSync,
  statSync,
  unlinkSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { advice, CairnError, either, reworded, toCairnError } from "../../errors.ts";
import { temporaryName } from "../../fs/durable.ts";
import { printablePath, rawBytes, type RawPath, shellPath } from "../../fs/paths/safe-path.ts";
import { membersOf } from "../../fs/users.ts";
import { existingAncestor } from "./room.ts";
import type { ControlPaths } from "./control-layout.ts";

/** Users and the control directories, records and caches that belong to them, and what root writes into another user's. */

interface Owner {
  uid: number;
  gid: number;
}

/** The owner of a path; null where it is not there or cannot be asked. */
function ownerOf(path: string | Buffer, look: typeof lstatSync = statSync): Owner | null {
  try {
    return look(path);
  } catch {
    return null;
  }
}

/**
 * True for a control directory that may keep a folder because of where it lies. Others may write at a mount's root and around a
 * folder in `/tmp`: it must be root's, this user's or the folder owner's; beside the folder, also the parent owner's.
 */
export function isTrusted(control: string, folder: Buffer): boolean {
  const above = folder.subarray(0, Math.max(1, folder.lastIndexOf(0x2f)));
  const trusted = [0, process.geteuid?.(), ownerOf(folder)?.uid];
  if (Buffer.from(dirname(control)).equals(above)) trusted.push(ownerOf(above)?.uid);
  // The owner of a link chose what it leads to.
  const owners = [ownerOf(control, lstatSync)?.uid, ownerOf(control)?.uid];
  return owners.every((owner) => owner !== undefined && trusted.includes(owner));
}

/**
 * Says who may rename what lies above a control directory, which need not be there yet, and so lose a folder's history: anybody
 * but root, this user and the folder's owner; null where nobody may.
 */
export function whoMayMove(control: string, folder: RawPath): string | null {
  const trusted = [0, process.geteuid?.(), ownerOf(rawBytes(folder))?.uid, unmappedUser()];
  const isOther = (uid: number): boolean => !trusted.includes(uid);
  const real = realpathSync.native(existingAncestor(dirname(control)), "buffer");
  for (let at = real.toString("latin1"); ; at = dirname(at)) {
    const place = Buffer.from(at, "latin1");
    const { uid, gid, mode } = statSync(place);
    const shown = printablePath(place);
    if (isOther(uid)) return `the user ${uid}, the owner of ${shown}, may rename its entries`;
    // With the sticky bit only the owner of what lies there, who was asked before, and the folder's own.
    const isSticky = (mode & 0o1000) !== 0;
    if (!isSticky && (mode & 0o002) !== 0) return `every user may rename entries of ${shown}`;
    if (!isSticky && (mode & 0o020) !== 0 && membersOf(gid).some(isOther))
      return `the group ${gid} may rename entries of ${shown}`;
    if (at === dirname(at)) return null;
  }
}

/** The user as whom a user namespace shows everybody outside, the real root too; undefined where all are shown. */
function unmappedUser(): number | undefined {
  try {
    const isWhole = /^\s*0\s+0\s+4294967295\s*$/.test(readFileSync("/proc/self/uid_map", "latin1"));
    return isWhole ? undefined : Number(readFileSync("/proc/sys/kernel/overflowuid", "latin1"));
  } catch {
    return undefined;
  }
}

/** Throws `permission` for a control directory that this user may not enter: a second one must not be begun beside it. */
export function requireOpen({ root }: ControlPaths, folder: Buffer): void {
  try {
    accessSync(root, constants.X_OK);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EACCES") return;
    const uid = ownerOf(root)?.uid;
    const isOwn = uid === process.geteuid?.();
    throw new CairnError(
      "permission",
      `the save points of ${printablePath(folder)} lie in ${root}, which you may not enter; it belongs to ${isOwn ? "you" : `the user ${uid}`}`,
      {
        hint: isOwn
          ? `open it: chmod u+rwx ${shellPath(root)}`
          : advice`work as that user${either(`: sudo -u '#${uid}' cairn …`, ` (uid ${uid})`)}`,
        cause: error,
      },
    );
  }
}

/** Warns root before something is written into a control directory that is another user's. */
export function warnRoot({ root }: ControlPaths, onWarning: ((message: string) => void) | undefined): void {
  const owner = process.geteuid?.() === 0 ? ownerOf(root) : null;
  if (owner === null || owner.uid === 0) return;
  onWarning?.(
    `the save points of this folder belong to the user ${owner.uid}, who may not read files that root writes there: work as that user (sudo -u '#${owner.uid}' cairn …), or give the files back afterwards: ${giveBack(root, owner)}`,
  );
}

/**
 * Warns root before something is written into other users' directories, which `su` and `sudo -E` lead to by keeping HOME.
 * `instead`: what else root can do than work as that user.
 */
export function warnRootOfPlaces(
  places: readonly string[],
  instead: string | null,
  onWarning: ((message: string) => void) | undefined,
): void {
  if (process.geteuid?.() !== 0) return;
  const others = places.flatMap((place) => {
    const found = firstOf(place, () => true);
    return found === null || found.owner.uid === 0 ? [] : [{ ...found, place }];
  });
  if (others.length === 0) return;
  const lines = others.map(({ path, owner }) => giveBack(path, owner));
  const { uid } = others[0]!.owner;
  const names = others.map(({ place }) => printablePath(place)).join(" and ");
  onWarning?.(
    `${names} ${others.length === 1 ? "belongs" : "belong"} to the user ${uid}, who may not use files that root writes there: work as that user (sudo -u '#${uid}' cairn …)${instead === null ? "" : ` or ${instead}`}, or give the files back afterwards: ${lines.join("; ")}`,
  );
}

/** A failure in this user's own control directory, with the command that gives back what somebody else wrote in it. */
export function unlessNotOwn({ root }: ControlPaths, error: unknown): unknown {
  const isOwn = ownerOf(root)?.uid === process.geteuid?.();
  return isOwn && toCairnError(error).hint === undefined ? unlessOthersWrote([root], error) : error;
}

/** A failure in one of this user's own directories, with the command that gives back what somebody else wrote there. */
export function unlessOthersWrote(places: readonly string[], error: unknown): unknown {
  const place = places.find((each) => toCairnError(error).message.includes(each));
  const hint = place === undefined ? null : hintOfOthers(place, error);
  return hint === null ? error : reworded(toCairnError(error), { hint });
}

/** The hint for a failure in a directory of this user's where somebody else's files are the reason; null where they are not. */
export function hintOfOthers(place: string, error: unknown): string | null {
  const own = process.geteuid?.();
  if (own === undefined || own === 0 || !isClosedByAnother(error, own)) return null;
  const found = firstOf(place, (uid) => uid === own);
  if (found === null) return null;
  return `root or another user wrote files there that you may not use; to become their owner: ${giveBack(found.path, found.owner)}`;
}

/** True when the path that the system refused is not this user's, or lies in something that is not. */
function isClosedByAnother(error: unknown, own: number): boolean {
  for (let each = error; each instanceof Error; each = each.cause) {
    const { code, path } = each as NodeJS.ErrnoException;
    if (path === undefined || (code !== "EACCES" && code !== "EPERM")) continue;
    const found = firstOf(path, () => true);
    return found !== null && found.owner.uid !== own;
  }
  return false;
}

/** The first owner that fits, of a path and the folders above it; with the path that lies right in that folder, or is it. */
function firstOf(place: string, fits: (uid: number) => boolean): { path: string; owner: Owner } | null {
  for (let at = place, path = place; ; path = at, at = dirname(at)) {
    const owner = ownerOf(at);
    if (owner !== null && fits(owner.uid)) return { path, owner };
    if (at === dirname(at)) return null;
  }
}

/**
 * The user who made a record, where that is neither root nor this user; null also where the record is not there. Some file
 * systems (vfat, NFS for root) give to somebody else what this process makes; then that user counts as this one.
 */
export function ownerBesidesUs(record: string): number | null {
  const uid = lstatSync(record, { throwIfNoEntry: false })?.uid;
  const own = process.geteuid?.();
  if (uid === undefined || own === undefined || uid === 0 || uid === own) return null;
  const place = join(dirname(record), temporaryName());
  try {
    const fd = openSync(place, "wx", 0o600);
    const { uid: given } = fstatSync(fd);
    closeSync(fd);
    unlinkSync(place);
    return given === uid ? null : uid;
  } catch {
    return uid;
  }
}

/** The command that makes everything in a directory its owner's again, but for held trees and what is kept for people. */
function giveBack(root: string, { uid, gid }: Owner): string {
  // Whoever chose the path writes into a line that root is told to run.
  const place = shellPath(root);
  return `sudo find ${place} \\( -path '*/points/*/tree' -o -path '*/kept' \\) -prune -o ! -user ${uid} -execdir chown -h ${uid}:${gid} {} +`;
}
