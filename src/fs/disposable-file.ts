import fs from "node:fs";
import { exchangePlaces } from "./linux/exchange-folders.ts";
import { openRegular } from "./regular-file.ts";

/**
 * Returns what `read` makes of a file that only makes things fast; null where there is none, or none that can be read.
 */
export function readDisposable<T>(path: string, read: (fd: number) => T | null): T | null {
  let fd: number;
  try {
    fd = openRegular(path);
  } catch {
    return null;
  }
  try {
    return read(fd);
  } catch {
    return null;
  } finally {
    fs.closeSync(fd);
  }
}

/**
 * Makes a finished temporary file the one at `path`; at every moment there is a whole one, and nothing is synced. ext4
 * would write a file out before it is renamed over another, which costs more than the file is worth: they change places.
 */
export function putDisposable(temporary: string, path: string): void {
  try {
    exchangePlaces(Buffer.from(temporary), Buffer.from(path));
  } catch {
    // There is none yet, or the file system cannot do it.
    fs.renameSync(temporary, path);
    return;
  }
  // What was in its place may be a folder.
  fs.rmSync(temporary, { recursive: true, force: true });
}
