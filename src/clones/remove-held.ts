import fs from "node:fs";
import { CairnError, toCairnError } from "../errors.ts";
import { destroySubvolume, isSubvolume, nestedSubvolumes, setReadOnly } from "../fs/linux/btrfs.ts";
import { ENOENT } from "../fs/linux/errno.ts";
import { nameOf, parentOf } from "../fs/linux/exchange-folders.ts";
import { openBelow, openInside } from "../fs/linux/open-below.ts";
import { newStatBuffer, openOwnWay, putName, syscallError, syscalls } from "../fs/linux/syscalls.ts";
import { letOwnerWrite } from "../fs/owner-writes.ts";
import { printablePath, quotedPath } from "../fs/paths/safe-path.ts";
import { identityOf, isSameDirectory, otherFolder, removeEntry, requireNoMounts } from "../fs/remove-all.ts";
import { type Arena, newArena } from "../native.ts";
import { firstFailure, withThreads } from "../threads/threads.ts";
import { WorkPool } from "../threads/work-pool.ts";
import type { Thread } from "../threads/worker-thread.ts";
import { CLONE, type CloneWork } from "./clone-work.ts";
import type { RemoveTask } from "./remove-directories.ts";

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

/**
 * Removes a large tree: threads remove the files, then {@link removeEntry} the rest. Does nothing if there is no tree.
 * Throws `refused` if it is not a directory, or if a file system is mounted inside; `permission`; other errors of the
 * file system.
 */
export async function removeTree(place: Uint8Array): Promise<void> {
  const at = Buffer.from(place);
  const stat = fs.lstatSync(at, { throwIfNoEntry: false });
  if (stat === undefined) return;
  if (!stat.isDirectory()) throw new CairnError("refused", `${quotedPath(at)} is not a directory`);
  try {
    await held(parentOf(at), (parent) => removeTreeIn(parent, at));
  } catch (error) {
    throw toCairnError(error, `removing ${quotedPath(at)}`);
  }
}

async function removeTreeIn(parent: number, place: Buffer): Promise<void> {
  const name = nameOf(place);
  const root = openIn(parent, name);
  // Its owner may not list it: the threads cannot, either.
  if (root < 0) return void (await removeEntry(parent, name));
  try {
    requireNoMounts(root, place);
    const identity = identityOf(root);
    await withThreads({ kind: CLONE }, async (threads) => unlinkBy(threads, { place, identity }));
    if (!(await removeEntry(parent, name, (found) => isSameDirectory(found, identity))))
      throw new CairnError("conflict", otherFolder(place));
  } finally {
    fs.closeSync(root);
  }
}

async function unlinkBy(threads: readonly Thread<CloneWork>[], task: Omit<RemoveTask, "pool">): Promise<void> {
  const pool = WorkPool.create(threads.length);
  const asked = await Promise.allSettled(
    threads.map(async (thread) =>
      thread.ask({ kind: "clone-remove", task: { ...task, pool: pool.shared } }).finally(() => {
        if (!thread.usable) pool.stop();
      }),
    ),
  );
  firstFailure(asked);
}

/**
 * Removes a snapshot with the subvolumes inside it; does nothing if there is none. Throws `refused` if the entry is not
 * a subvolume, or if a file system is mounted inside.
 */
export async function removeSnapshot(place: Buffer): Promise<void> {
  const stats = fs.lstatSync(place, { throwIfNoEntry: false });
  if (stats === undefined) return;
  if (!stats.isDirectory() || !isSubvolume(place)) {
    throw new CairnError("refused", `remove ${printablePath(place)}: it is not a subvolume`, {
      hint: "look at its content: a clone on btrfs is always a subvolume",
    });
  }
  await held(parentOf(place), async (parent) => {
    const root = openIn(parent, nameOf(place));
    if (root >= 0)
      try {
        requireNoMounts(root, place);
      } finally {
        fs.closeSync(root);
      }
    await removeSubvolume(parent, nameOf(place));
  });
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
      // An ordinary user without `user_subvol_rm_allowed` may still remove own entries one by one, and then the empty
      // subvolume like a directory.
      if (errno === "EPERM" && (await removeEntry(parent, name).catch(() => false))) return;
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

/** Works on a directory below a held one, so that a swapped-in link or mount cannot lead outside. */
async function heldIn<T>(parent: number, path: Uint8Array, work: (fd: number) => Promise<T>): Promise<T> {
  const fd = openIn(parent, path);
  if (fd < 0) throw syscallError(fd, `open ${printablePath(path)}`);
  try {
    return await work(fd);
  } finally {
    fs.closeSync(fd);
  }
}

function openIn(parent: number, path: Uint8Array): number {
  const sys = syscalls();
  return openBelow(sys, parent, path, NO_LINK, newArena(PATH_ROOM), (...where) => openInside(sys, ...where));
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
