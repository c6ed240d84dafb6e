import { newArena } from "../native.ts";
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

/** The directory that an absolute raw path lies in. */
export function parentOf(path: Buffer): Buffer {
  const at = path.lastIndexOf(0x2f);
  return at <= 0 ? Buffer.from("/") : path.subarray(0, at);
}

/** The last name of an absolute raw path. */
export function nameOf(path: Buffer): Buffer {
  return path.subarray(path.lastIndexOf(0x2f) + 1);
}
