import fs from "node:fs";
import type { Arena } from "../../native.ts";
import { EXDEV } from "./errno.ts";
import { mountOf } from "./mounts.ts";
import { newStatBuffer, STAT, type Syscalls, syscalls, wide } from "./syscalls.ts";

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
 * at least 4096 bytes. With `openInside()` as `open`, no mount is entered (`EXDEV`).
 */
export function openBelow(
  sys: Syscalls,
  root: number,
  path: Uint8Array,
  flags: number,
  scratch: Arena,
  open: Syscalls["openBelow"] = sys.openBelow,
): number {
  if (path.length === 0) {
    scratch.bytes[0] = DOT;
    scratch.bytes[1] = 0;
    return open(root, scratch, 0, flags);
  }
  let fd = root;
  for (let at = 0; at < path.length;) {
    let end = path.length;
    if (end - at > PIECE) end = path.lastIndexOf(SLASH, at + PIECE);
    scratch.bytes.set(path.subarray(at, end), 0);
    scratch.bytes[end - at] = 0;
    const next = open(fd, scratch, 0, end === path.length ? flags : INTERMEDIATE);
    if (fd !== root) sys.close(fd);
    if (next < 0) return next;
    fd = next;
    at = end + 1;
  }
  return fd;
}

/**
 * Opens like {@link Syscalls.openBelow}, but returns `EXDEV` if the path leads into another mount. A subvolume of btrfs
 * is no mount.
 */
export function openInside(sys: Syscalls, dirfd: number, names: Arena, path: number, flags: number): number {
  if (sys.openInside !== null) return sys.openInside(dirfd, names, path, flags);
  const fd = sys.openBelow(dirfd, names, path, flags);
  const mount = fd < 0 ? null : mountIdOf(fd);
  if (fd < 0 || (mount !== null && mount === mountIdOf(dirfd))) return fd;
  sys.close(fd);
  return EXDEV;
}

const STATX_MNT_ID = 0x1000;

/** Returns the id in mountinfo of the mount through which a descriptor was opened; null if the system does not tell. */
export function mountIdOf(fd: number): number | null {
  const stat = newStatBuffer();
  const looked = syscalls().fstat(fd, stat);
  // Linux 5.8; before, only /proc tells.
  if (looked >= 0 && (stat.words[STAT.MASK]! & STATX_MNT_ID) !== 0) return wide(stat.words, STAT.MOUNT_ID);
  try {
    const told = /^mnt_id:\s*(\d+)$/mu.exec(fs.readFileSync(`/proc/self/fdinfo/${fd}`, "latin1"));
    return told === null ? (mountOf(`/proc/self/fd/${fd}`)?.id ?? null) : Number(told[1]);
  } catch {
    return null;
  }
}
