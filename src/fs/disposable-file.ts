import fs from "node:fs";
import { exchangePlaces } from "./linux/exchange-folders.ts";
import { openRegular } from "./regular-file.ts";

/** Returns the result of `read` on a cache file; null if the file does not exist or cannot be read. */
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
 * Renames a finished temporary file to `path` without a sync; `path` is a whole file at every moment. Exchanges the two
 * names, because ext4 would write the file out before a rename over another file, which costs too much for a cache.
 */
export function putDisposable(temporary: string, path: string): void {
  try {
    exchangePlaces(Buffer.from(temporary), Buffer.from(path));
  } catch {
    // There is no file at `path` yet, or the file system cannot exchange names.
    fs.renameSync(temporary, path);
    return;
  }
  try {
    fs.unlinkSync(temporary);
  } catch {
    // A displaced folder goes with the old caches.
  }
}
