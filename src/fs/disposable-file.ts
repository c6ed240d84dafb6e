import fs from "node:fs";

/** What `read` makes of a file that only makes things fast; null where there is none, or none that can be read. */
export function readDisposable<T>(path: string, read: (fd: number) => T | null): T | null {
  let fd: number;
  try {
    fd = fs.openSync(path, "r");
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
