import { lstatSync, mkdirSync, statSync } from "node:fs";
import { resolve } from "node:path";
import { newArena } from "../native.ts";
import { inParentOf, nameOf, parentOf } from "./linux/exchange-folders.ts";
import { setMode } from "./owner-writes.ts";
import { printablePath } from "./paths/safe-path.ts";
import { inDirectory, putName, syscallError, syscalls } from "./linux/syscalls.ts";

/**
 * Makes a folder and missing parents, private unless `mode` says otherwise (less the umask). Throws the kernel's
 * errors. Node's recursive mkdir never ends if the kernel reports ENOENT below an existing parent, as proc does, and
 * reports ENOENT instead of EROFS.
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
    // Another process may have made the folder meanwhile.
    makeFolder(folder, mode);
  }
}

/**
 * Makes one folder in its open parent, so that no link of another user can redirect it. Throws `conflict` for such a
 * link, `already_exists`, or the kernel's error.
 */
export function makeOneFolder(folder: Buffer, mode: number): void {
  const name = newArena(512);
  putName(name, 0, nameOf(folder));
  const made = inParentOf(folder, (fd) => syscalls().mkdir(fd, name, 0, mode));
  if (made < 0) throw syscallError(made, `make the folder ${printablePath(folder)}`);
}

/** Makes a folder with its missing parents; an existing folder stays as it is. */
export function makeRealFolder(folder: Buffer, mode: number): void {
  if (statSync(folder, { throwIfNoEntry: false })?.isDirectory() === true) return;
  const parent = parentOf(folder);
  if (!isThere(parent)) makeRealFolder(parent, mode);
  try {
    makeOneFolder(folder, mode);
  } catch (error) {
    // Another process may have made the folder meanwhile.
    if (statSync(folder, { throwIfNoEntry: false })?.isDirectory() !== true) throw error;
  }
}

/** True also for a link to a missing target: nothing is made below such a link. */
function isThere(path: Buffer): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}

/** Gives a folder that was private while it was filled the permissions of a folder that this process makes. */
export function openToUmask(folder: Buffer): void {
  inDirectory(folder, (fd) => setMode(fd, 0o777 & ~process.umask()));
}
