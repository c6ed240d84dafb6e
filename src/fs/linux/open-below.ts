import fs from "node:fs";
import type { Arena } from "../../native.ts";
import type { Syscalls } from "./syscall-abi.ts";

/** The longest path that one call takes. */
const PIECE = 4000;
const SLASH = 47;
const DOT = 46;
const INTERMEDIATE = fs.constants.O_RDONLY | fs.constants.O_DIRECTORY | fs.constants.O_NOFOLLOW;
/** Flags for opening directories: no link is followed, and the call never waits. */
export const DIRECTORY =
  fs.constants.O_RDONLY | fs.constants.O_DIRECTORY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK;

/**
 * Opens an entry by its path below an open directory. Returns a descriptor or minus errno. Follows no link, on the way
 * or at the end (`ELOOP`, `ENOTDIR`); the path may be longer than PATH_MAX. Empty: the directory itself. `scratch` has
 * at least 4096 bytes.
 */
export function openBelow(sys: Syscalls, root: number, path: Uint8Array, flags: number, scratch: Arena): number {
  if (path.length === 0) {
    scratch.bytes[0] = DOT;
    scratch.bytes[1] = 0;
    return sys.openBelow(root, scratch, 0, flags);
  }
  let fd = root;
  for (let at = 0; at < path.length;) {
    let end = path.length;
    if (end - at > PIECE) end = path.lastIndexOf(SLASH, at + PIECE);
    scratch.bytes.set(path.subarray(at, end), 0);
    scratch.bytes[end - at] = 0;
    const next = sys.openBelow(fd, scratch, 0, end === path.length ? flags : INTERMEDIATE);
    if (fd !== root) sys.close(fd);
    if (next < 0) return next;
    fd = next;
    at = end + 1;
  }
  return fd;
}
