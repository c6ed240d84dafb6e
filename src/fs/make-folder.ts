import { fchmodSync, lstatSync, mkdirSync, statSync } from "node:fs";
import { resolve } from "node:path";
import { newArena } from "../native.ts";
import { inParentOf, nameOf, parentOf } from "./linux/exchange-folders.ts";
import { printablePath } from "./paths/safe-path.ts";
import { inDirectory, putName, syscallError, syscalls } from "./linux/syscalls.ts";

/**
 * Makes a folder and its missing parents, for their owner alone unless `mode` says otherwise (less the umask). Throws what
 * the kernel says. Node's own recursive call never ends where the kernel says that something is missing of a parent that is
 * there, as proc does, and says ENOENT instead of EROFS.
 */
export function makeFolder(path: string | Buffer, mode = 0o700): void {
  const folder = typeof path === "string" ? Buffer.from(resolve(path)) : path;
  try {
    mkdirSync(folder, { mode });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "EEXIST" && statSync(folder).isDirectory()) return;
    const parent = parentOf(folder);
    if (code !== "ENOENT" || isThere(parent)) throw error;
    makeFolder(parent, mode);
    // Of two that make it at once the other may be first.
    makeFolder(folder, mode);
  }
}

/**
 * Makes one folder in the one above it, which is held: not where another user has a link lead to meanwhile. Throws
 * `conflict` then, `already_exists`, or what else the kernel says.
 */
export function makeOneFolder(folder: Buffer, mode: number): void {
  const name = newArena(512);
  putName(name, 0, nameOf(folder));
  const made = inParentOf(folder, (fd) => syscalls().mkdir(fd, name, 0, mode));
  if (made < 0) throw syscallError(made, `make the folder ${printablePath(folder)}`);
}

/** Makes a folder with its missing parents; one that is there is left as it is. */
export function makeRealFolder(folder: Buffer, mode: number): void {
  if (statSync(folder, { throwIfNoEntry: false })?.isDirectory() === true) return;
  const parent = parentOf(folder);
  if (!isThere(parent)) makeRealFolder(parent, mode);
  try {
    makeOneFolder(folder, mode);
  } catch (error) {
    // Of two that make it at once the other may be first.
    if (statSync(folder, { throwIfNoEntry: false })?.isDirectory() !== true) throw error;
  }
}

/** Whatever it is: below a link that leads nowhere nothing is made. */
function isThere(path: Buffer): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}

/** Gives a folder that was filled for its owner alone the permissions of one that is made by this process otherwise. */
export function openToUmask(folder: Buffer): void {
  inDirectory(folder, (fd) => fchmodSync(fd, 0o777 & ~process.umask()));
}
