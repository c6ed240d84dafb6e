import fs from "node:fs";
import type { Arena } from "../../native.ts";
import { EXDEV } from "./errno.ts";
import type { Syscalls } from "./syscall-abi.ts";

/** Longest path handed to the kernel in one piece. */
const PIECE = 4000;
const O_DIRECTORY = fs.constants.O_DIRECTORY;
const O_NOFOLLOW = fs.constants.O_NOFOLLOW;
const SLASH = 47;
const DOT = 46;
const INTERMEDIATE = fs.constants.O_RDONLY | O_DIRECTORY | O_NOFOLLOW;
/** Flags with which directories are opened: no link is followed, and nothing waits. */
export const DIRECTORY =
  fs.constants.O_RDONLY | fs.constants.O_DIRECTORY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK;

/**
 * Opens an entry by its path below a held directory: a descriptor, or minus errno. No link is followed, neither on
 * the way nor at the end (`ELOOP`, `ENOTDIR`); the path may be longer than the system takes. Empty: the directory itself.
 * `scratch` holds at least 4096 bytes.
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

/** Opens one name at a time, where the kernel has no openat2(2) for {@link Syscalls.openBelow}. */
export function openByNames(
  sys: Pick<Syscalls, "open" | "close">,
  root: number,
  names: Arena,
  name: number,
  flags: number,
): number {
  const { bytes } = names;
  const end = bytes.indexOf(0, name);
  let fd = root;
  for (let at = name; ;) {
    const slash = bytes.indexOf(SLASH, at);
    const last = slash < 0 || slash >= end;
    if (bytes[at] === DOT && bytes[at + 1] === DOT && (bytes[at + 2] === SLASH || bytes[at + 2] === 0)) {
      if (fd !== root) sys.close(fd);
      return EXDEV;
    }
    if (!last) bytes[slash] = 0;
    const next = sys.open(fd, names, at, last ? flags | O_NOFOLLOW : INTERMEDIATE, 0);
    if (!last) bytes[slash] = SLASH;
    if (fd !== root) sys.close(fd);
    if (last || next < 0) return next;
    fd = next;
    at = slash + 1;
  }
}
