import { existsSync, mkdirSync } from "node:fs";
import { dirname } from "node:path";

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
