import {
  accessSync,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  realpathSync,
  statSync,
  unlinkSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { advice, CairnError, either, reworded, toCairnError } from "../../errors.ts";
import { temporaryName } from "../../fs/durable.ts";
import { outsideOwner } from "../../fs/linux/syscalls.ts";
import { NO_ID } from "../../fs/linux/user-namespace.ts";
import { filesystemKind, readMounts, resolveMount, TESTED_POINT } from "../../fs/linux/mounts.ts";
import { isAtOrBelow, printablePath, rawBytes, type RawPath, shellPath } from "../../fs/paths/safe-path.ts";
import { homeDirectories, knownHome, membersOf } from "../../fs/users.ts";
import { existingAncestor } from "./room.ts";
import type { ControlPaths } from "./control-layout.ts";

/** Decides by owners which control directories and records to trust, and refuses writes of root into other users' places. */

/** File systems that give root's files to root, whatever the mount options. */
const KEEP_OWNERS: ReadonlySet<string> = new Set([
  "ext4",
  "xfs",
  "btrfs",
  "f2fs",
  "zfs",
  "bcachefs",
  "tmpfs",
  "overlay",
]);

interface Owner {
  uid: number;
  gid: number;
}

/** The owner of a path; null if the path is missing or unreadable. */
function ownerOf(path: string | Buffer, look: typeof lstatSync = statSync): Owner | null {
  try {
    return look(path);
  } catch {
    return null;
  }
}

/**
 * True if a control directory may keep a folder just because it lies near the folder. Others may write at a mount's
 * root and beside a folder in `/tmp`, so its owner must be root, this user or the folder's owner; beside the folder,
 * also the parent's owner.
 */
export function isTrusted(control: string, folder: Buffer): boolean {
  const above = folder.subarray(0, Math.max(1, folder.lastIndexOf(0x2f)));
  const trusted = [0, process.geteuid?.(), ownerOf(folder)?.uid];
  if (Buffer.from(dirname(control)).equals(above)) trusted.push(ownerOf(above)?.uid);
  // Check the link's owner, too: that user chose its target.
  const owners = [ownerOf(control, lstatSync)?.uid, ownerOf(control)?.uid];
  return owners.every((owner) => owner !== undefined && trusted.includes(owner));
}

/**
 * Names a user who may rename a directory above a control directory, which need not exist yet, and so hide a folder's
 * history: anybody except root, this user and the folder's owner. Null if there is none.
 */
export function whoMayMove(control: string, folder: RawPath): string | null {
  const trusted = [0, process.geteuid?.(), ownerOf(rawBytes(folder))?.uid];
  const isOther = (uid: number): boolean => !trusted.includes(uid);
  const real = realpathSync.native(existingAncestor(dirname(control)), "buffer");
  for (let at = real.toString("latin1"); ; at = dirname(at)) {
    const place = Buffer.from(at, "latin1");
    const facts = statSync(place);
    const { uid, gid, mode } = facts;
    const shown = printablePath(place);
    // Users outside this process's user namespace count as root: the host's root is one of them.
    if (isOther(uid) && outsideOwner(place, facts).uid !== NO_ID)
      return `the user ${uid}, the owner of ${shown}, may rename its entries`;
    // With the sticky bit only the owners of the entry (checked in the step before) and of the directory may rename.
    const isSticky = (mode & 0o1000) !== 0;
    if (!isSticky && (mode & 0o002) !== 0) return `every user may rename entries of ${shown}`;
    if (!isSticky && (mode & 0o020) !== 0 && membersOf(gid).some(isOther))
      return `the group ${gid} may rename entries of ${shown}`;
    if (at === dirname(at)) return null;
  }
}

/** Throws `permission` for a control directory that this user may not enter. Otherwise a second one could be begun beside it. */
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
          : advice`work as that user${either(`: sudo -u '#${uid}' cairn …`, ` (uid ${uid})`)}; several users share a folder through root's daemon`,
        cause: error,
      },
    );
  }
}

/** Throws `refused` before root writes into another user's control directory. Looks need no such check: they write nothing there. */
export function requireNotOthers({ root }: ControlPaths): void {
  const other = othersPlace(root);
  if (other === null) return;
  throw new CairnError(
    "refused",
    `the save points of this folder belong to the user ${other.owner.uid}, who could not use files that root writes there (${printablePath(root)})`,
    { hint: `work as that user: sudo -u '#${other.owner.uid}' cairn …; as root you can look at the points` },
  );
}

/** Throws `refused` in the command of a bisect, for which the folder's path shows the tested point. */
export function requireNotTested(folder: Buffer): void {
  if (resolveMount(folder, readMounts())?.source.startsWith(TESTED_POINT) !== true) return;
  throw new CairnError("refused", `${printablePath(folder)} shows a save point here that a bisect tests`, {
    hint: "a command that a bisect runs cannot save or restore the same folder: run it without Cairn",
  });
}

/**
 * Throws `refused` before root writes records into another user's home, to which `su` and `sudo -E` lead by keeping
 * HOME. The user could not use Cairn afterwards, and programs that the folder was made for could not use it either.
 */
export function requireOwnHome(place: string): void {
  const other = othersPlace(place);
  if (other === null) return;
  throw new CairnError(
    "refused",
    `${printablePath(place)}, where Cairn would write, belongs to the user ${other.owner.uid}, who could not use files that root makes there`,
    {
      hint: `use root's own home: sudo -H cairn …; or work as that user: sudo -u '#${other.owner.uid}' cairn …; in a container set XDG_STATE_HOME to a folder of root`,
    },
  );
}

/** As {@link requireOwnHome}, for a repository in a home; root is only warned of another user's repository elsewhere. */
export function requireOwnRepository(location: string, onWarning: ((message: string) => void) | undefined): void {
  const other = othersPlace(location);
  if (other === null) return;
  const homes = [knownHome(), ...homeDirectories()].filter((each) => each !== null && each !== "/");
  if (homes.some((home) => isAtOrBelow(Buffer.from(location), Buffer.from(home!)))) requireOwnHome(location);
  const { path, owner } = other;
  onWarning?.(
    `${printablePath(location)} belongs to the user ${owner.uid}, who may not use files that root writes there: work as that user (sudo -u '#${owner.uid}' cairn …), or give the files back afterwards: ${giveBack(path, owner)}`,
  );
}

/**
 * The first existing entry of a place and its owner, if this is root and the owner is another user. Null also if the
 * file system gives root's files to that owner, or if nothing can be made there.
 */
function othersPlace(place: string): { path: string; owner: Owner } | null {
  if (process.geteuid?.() !== 0) return null;
  const found = firstOf(place, () => true);
  if (found === null || found.owner.uid === 0) return null;
  const folder = statSync(found.at).isDirectory() ? found.at : dirname(found.at);
  if (KEEP_OWNERS.has(filesystemKind(folder).name)) return found;
  const given = ownerOfNew(folder);
  return given === null || given === found.owner.uid ? null : found;
}

/** Adds a hint to an error if another user wrote into this user's control directory: how to become the files' owner. */
export function unlessNotOwn({ root }: ControlPaths, error: unknown): unknown {
  const isOwn = ownerOf(root)?.uid === process.geteuid?.();
  return isOwn && toCairnError(error).hint === undefined ? unlessOthersWrote([root], error) : error;
}

/** Adds the hint of {@link hintOfOthers} to an error that names one of `places`, directories of this user. */
export function unlessOthersWrote(places: readonly string[], error: unknown): unknown {
  const place = places.find((each) => toCairnError(error).message.includes(each));
  const hint = place === undefined ? null : hintOfOthers(place, error);
  return hint === null ? error : reworded(toCairnError(error), { hint });
}

/** The hint for an error in this user's directory; null if other users' files are not the reason. */
export function hintOfOthers(place: string, error: unknown): string | null {
  const own = process.geteuid?.();
  if (own === undefined || own === 0 || !isClosedByAnother(error, own)) return null;
  const found = firstOf(place, (uid) => uid === own);
  if (found === null) return null;
  return `root or another user wrote files there that you may not use; to become their owner: ${giveBack(found.path, found.owner)}`;
}

/** True if the system refused access to a path that belongs to another user or lies in another user's directory. */
function isClosedByAnother(error: unknown, own: number): boolean {
  for (let each = error; each instanceof Error; each = each.cause) {
    const { code, path } = each as NodeJS.ErrnoException;
    if (path === undefined || (code !== "EACCES" && code !== "EPERM")) continue;
    const found = firstOf(path, () => true);
    return found !== null && found.owner.uid !== own;
  }
  return false;
}

/** The first owner that fits, of a path or a folder above (`at`). `path`: the entry of that folder on the way to `place`. */
function firstOf(place: string, fits: (uid: number) => boolean): { at: string; path: string; owner: Owner } | null {
  for (let at = place, path = place; ; path = at, at = dirname(at)) {
    const owner = ownerOf(at);
    if (owner !== null && fits(owner.uid)) return { at, path, owner };
    if (at === dirname(at)) return null;
  }
}

/**
 * The user who made a record, if that is neither root nor this user; null also if the record is missing. Some file
 * systems (vfat, NFS for root) give this process's files to another user, who then counts as this one.
 */
export function ownerBesidesUs(record: string): number | null {
  const uid = lstatSync(record, { throwIfNoEntry: false })?.uid;
  const own = process.geteuid?.();
  if (uid === undefined || own === undefined || uid === 0 || uid === own) return null;
  return ownerOfNew(dirname(record)) === uid ? null : uid;
}

/** The user to whom the file system gives a new file of this process; null if none can be made. */
function ownerOfNew(directory: string): number | null {
  const place = join(directory, temporaryName());
  try {
    const fd = openSync(place, "wx", 0o600);
    const { uid } = fstatSync(fd);
    closeSync(fd);
    unlinkSync(place);
    return uid;
  } catch {
    return null;
  }
}

/** The command that gives all files of a directory to its owner, except held trees and the folder `kept`. */
function giveBack(root: string, { uid, gid }: Owner): string {
  // Quote the place: another user chose the path, and root is told to run this line.
  const place = shellPath(root);
  return `sudo find ${place} \\( -path '*/points/*/tree' -o -path '*/kept' \\) -prune -o ! -user ${uid} -execdir chown -h ${uid}:${gid} {} +`;
}
