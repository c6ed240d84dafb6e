import fs from "node:fs";
import { CairnError, toCairnError } from "../errors.ts";
import { destroySubvolume, isSubvolume, nestedSubvolumes, setReadOnly } from "../fs/linux/btrfs.ts";
import { ENOENT } from "../fs/linux/errno.ts";
import { nameOf, parentOf } from "../fs/linux/exchange-folders.ts";
import { openBelow } from "../fs/linux/open-below.ts";
import { newStatBuffer, openOwnWay, putName, syscallError, syscalls } from "../fs/linux/syscalls.ts";
import { letOwnerWrite } from "../fs/owner-writes.ts";
import { removal } from "../fs/remove-all.ts";
import { printablePath } from "../fs/paths/safe-path.ts";
import { type Arena, newArena } from "../native.ts";
import { newPacer } from "../pacer.ts";
import { removeTree } from "./remove-tree.ts";

const SLASH = 0x2f;
const PATH_ROOM = 4096;
const DIRECTORY = fs.constants.O_RDONLY | fs.constants.O_DIRECTORY;
/** Opens a directory without following a link. */
export const NO_LINK = DIRECTORY | fs.constants.O_NOFOLLOW;
/** Most rounds of a removal, more than any tree is deep: ends a removal while entries keep being added. */
const MOST_ROUNDS = 100;

/** Removes a held or half-made tree of any driver; does nothing if there is none. */
export async function removeHeldTree(place: string | Buffer): Promise<void> {
  if (fs.lstatSync(place, { throwIfNoEntry: false }) === undefined) return;
  await (isSubvolume(place) ? removeSnapshot : removeTree)(Buffer.from(place));
}

/** Removes a snapshot with the subvolumes inside it; does nothing if there is none. Throws `refused` if the entry is not a subvolume. */
export async function removeSnapshot(place: Buffer): Promise<void> {
  const stats = fs.lstatSync(place, { throwIfNoEntry: false });
  if (stats === undefined) return;
  if (!stats.isDirectory() || !isSubvolume(place)) {
    throw new CairnError("refused", `remove ${printablePath(place)}: it is not a subvolume`, {
      hint: "look at its content: a clone on btrfs is always a subvolume",
    });
  }
  await held(parentOf(place), (parent) => removeSubvolume(parent, nameOf(place)));
}

/** Removes a subvolume of a held directory with the subvolumes inside it, read-only or not. */
async function removeSubvolume(parent: number, name: Uint8Array): Promise<void> {
  for (let round = 0; ; round++) {
    try {
      await heldIn(parent, name, removeNested);
      await destroySubvolume(parent, name);
      return;
    } catch (error) {
      const errno = errnoOf(error);
      if (errno === "ENOENT" && !isIn(parent, name)) return;
      if (errno === "EPERM" && (await removeEntries(parent, name))) return;
      // The subvolume's own mode keeps an ordinary user from removing it.
      if (errno === "EACCES" && (await heldIn(parent, name, openForOwner))) continue;
      // A subvolume was made inside, or moved there, meanwhile.
      const again = errno === "ENOTEMPTY" || errno === "ENOENT" || (errno === "EROFS" && round === 0);
      if (!again || round >= MOST_ROUNDS) throw error;
      if (errno === "EROFS") await heldIn(parent, name, makeWritable);
    }
  }
}

function makeWritable(fd: number): Promise<void> {
  return setReadOnly(fd, false);
}

async function openForOwner(fd: number): Promise<boolean> {
  await makeWritable(fd);
  return letOwnerWrite(fd);
}

async function removeNested(fd: number): Promise<void> {
  const nested = nestedSubvolumes(fd);
  if (nested.length === 0) return;
  await setReadOnly(fd, false);
  for (const { path } of nested) {
    if (path === null) continue;
    const at = path.lastIndexOf(SLASH);
    await heldIn(fd, path.subarray(0, Math.max(at, 0)), (directory) =>
      removeSubvolume(directory, path.subarray(at + 1)),
    );
  }
}

/**
 * An ordinary user without `user_subvol_rm_allowed` may still remove own entries one by one, and then the empty
 * subvolume like a directory. False if that fails.
 */
async function removeEntries(parent: number, name: Uint8Array): Promise<boolean> {
  const pace = newPacer(undefined);
  try {
    for (const _step of removal(parent, name)) await pace();
    return true;
  } catch {
    return false;
  }
}

/** Works on a directory that is held open. */
export async function held<T>(path: Buffer, work: (fd: number) => Promise<T>, flags = DIRECTORY): Promise<T> {
  const fd = opened(path, flags);
  try {
    return await work(fd);
  } finally {
    fs.closeSync(fd);
  }
}

function opened(path: Buffer, flags: number): number {
  try {
    return openOwnWay(path, flags);
  } catch (error) {
    throw toCairnError(error, `open ${printablePath(path)}`);
  }
}

/** Works on a directory below a held one, so that a swapped-in link cannot lead outside. */
async function heldIn<T>(parent: number, path: Uint8Array, work: (fd: number) => Promise<T>): Promise<T> {
  const fd = openBelow(syscalls(), parent, path, NO_LINK, newArena(PATH_ROOM));
  if (fd < 0) throw syscallError(fd, `open ${printablePath(path)}`);
  try {
    return await work(fd);
  } finally {
    fs.closeSync(fd);
  }
}

function isIn(parent: number, name: Uint8Array): boolean {
  return syscalls().stat(parent, named(name), 0, newStatBuffer()) !== ENOENT;
}

/** A name as a NUL-terminated arena for system calls. */
export function named(name: Uint8Array): Arena {
  const arena = newArena(name.length + 1);
  putName(arena, 0, name);
  return arena;
}

/** The name of the system's error; undefined if the error has none. */
export function errnoOf(error: unknown): string | undefined {
  if (!(error instanceof CairnError)) return undefined;
  return (error.details?.["errno"] ?? (error.cause as { code?: unknown } | undefined)?.code) as string | undefined;
}
