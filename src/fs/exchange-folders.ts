import fs from "node:fs";
import { newArena } from "../native.ts";
import { EEXIST, EINVAL, ENOSYS } from "./errno.ts";
import { printablePath } from "./safe-path.ts";
import { inDirectory, putName, RENAME, syscallError, syscalls } from "./syscalls.ts";

/** Two entries (absolute paths, raw bytes) change places in one call; there is no moment without either. Throws what the errno means. */
export function exchangePlaces(one: Buffer, other: Buffer): void {
  const sys = syscalls();
  const [from, to] = [newArena(512), newArena(512)];
  putName(from, 0, nameOf(other));
  putName(to, 0, nameOf(one));
  const result = inDirectory(parentOf(other), (aside) =>
    inDirectory(parentOf(one), (parent) => sys.rename(aside, from, 0, parent, to, 0, RENAME.EXCHANGE)),
  );
  if (result < 0) throw syscallError(result, "exchange the two");
}

/** An entry takes another name (absolute paths, raw bytes) that nothing has. Throws what the errno means. */
export function moveToFree(from: Buffer, to: Buffer): void {
  const sys = syscalls();
  const [old, free] = [newArena(512), newArena(512)];
  putName(old, 0, nameOf(from));
  putName(free, 0, nameOf(to));
  const result = inDirectory(parentOf(from), (source) =>
    inDirectory(parentOf(to), (target) => {
      const moved = sys.rename(source, old, 0, target, free, 0, RENAME.NOREPLACE);
      if (moved !== EINVAL && moved !== ENOSYS) return moved;
      // Network file systems cannot promise it; a look before is what there is.
      if (fs.lstatSync(to, { throwIfNoEntry: false }) !== undefined) return EEXIST;
      return sys.rename(source, old, 0, target, free, 0, 0);
    }),
  );
  if (result < 0) throw syscallError(result, `move ${printablePath(from)} to ${printablePath(to)}`);
}

/** The directory that an absolute raw path lies in. */
export function parentOf(path: Buffer): Buffer {
  const at = path.lastIndexOf(0x2f);
  return at <= 0 ? Buffer.from("/") : path.subarray(0, at);
}

/** The last name of an absolute raw path. */
export function nameOf(path: Buffer): Buffer {
  return path.subarray(path.lastIndexOf(0x2f) + 1);
}
