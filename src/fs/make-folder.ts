import { existsSync, fchmodSync, mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { inDirectory } from "./syscalls.ts";

/**
 * Makes a folder and its missing parents for their owner alone. Throws what the kernel says: for a file system that is
 * mounted read-only, Node's own recursive call says ENOENT instead of EROFS.
 */
export function makeFolder(path: string): void {
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    const parent = dirname(path);
    if (!existsSync(parent) && parent !== path) makeFolder(parent);
    mkdirSync(path, { mode: 0o700 });
  }
}

/** Gives a folder that was filled for its owner alone the permissions of one that is made by this process otherwise. */
export function openToUmask(folder: Buffer): void {
  inDirectory(folder, (fd) => fchmodSync(fd, 0o777 & ~process.umask()));
}
