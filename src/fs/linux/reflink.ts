import fs from "node:fs";
import os from "node:os";
import { type Arena, bindNative, lastErrno, type NativeFunction, newArena } from "../../native.ts";
import { ENOSYS, EXDEV } from "./errno.ts";
import { EINTR, type Syscalls } from "./syscall-abi.ts";

/** Clones of files: a second file that shares the first file's blocks until either is written to. */

const FICLONE = 0x40049409;
const FS_IOC_FIEMAP = 0xc020660b;
const FIEMAP_FLAG_SYNC = 1;
const FIEMAP_EXTENT_INLINE = 0x200;
/** Sizes of the request and of each extent in the answer; offset of the flags in an extent. */
const FIEMAP_BYTES = 32;
const EXTENT_BYTES = 56;
const EXTENT_FLAGS = 40;
const FS_IOC_GETFLAGS = 0x80086601;
const FS_IOC_SETFLAGS = 0x40086602;
const FS_IOC_GETVERSION = 0x80087601;
const FS_NOCOW_FL = 0x00800000;
const FS_COMPR_FL = 0x4;
/** Flags of chattr: written at once, not dumped, no access times, directory written at once, new entries not copied on write. */
const CARRIED = 0x8 | 0x40 | 0x80 | 0x10000 | FS_NOCOW_FL;

const CODES: Record<string, number> = os.constants.errno;
const errnos = (...names: string[]): ReadonlySet<number> => new Set(names.map((name) => -(CODES[name] ?? 0)));
const REFUSED = errnos("EOPNOTSUPP", "ENOTSUP", "ENOSYS", "ENOTTY", "EXDEV", "EINVAL", "ETXTBSY", "EPERM", "EISDIR");
const FULL = errnos("ENOSPC", "EDQUOT");

let bound: NativeFunction | null | undefined;

/** Result of a call, or minus errno. */
export function ioctl(fd: number, request: number, argument: number): number {
  bound ??= bindNative("int ioctl(int fd, uint64_t request, uint64_t argument)");
  if (bound === null) return ENOSYS;
  for (;;) {
    const result = bound(fd, request, argument);
    if (result >= 0) return result;
    const errno = lastErrno();
    if (errno !== EINTR) return -errno;
  }
}

/**
 * Makes an open empty file an atomic clone of another. Returns 0 or minus errno (see `cloneAnswer`). The kernel first
 * writes back the source's cached data. Holes stay; metadata is not cloned.
 */
export function cloneFile(from: number, to: number): number {
  return ioctl(to, FICLONE, from);
}

/** A free name in an open directory. */
export interface NewName {
  directory: number;
  names: Arena;
  name: number;
}

/** Makes a new file that is a clone of an open file. Returns its descriptor or minus errno. */
export function cloneTo(sys: Syscalls, from: number, place: NewName): number {
  const { directory, names, name } = place;
  const { O_RDWR, O_CREAT, O_EXCL, O_NOFOLLOW } = fs.constants;
  const to = sys.open(directory, names, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
  if (to < 0) return to;
  const result = cloneFile(from, to);
  if (result >= 0) return to;
  sys.close(to);
  sys.unlink(directory, names, name, false);
  return result;
}

/** Returns the meaning of a clone call's result: refused for this file or file system (a copy may work), no space, or failed. */
export function cloneAnswer(result: number): "cloned" | "refused" | "full" | "failed" {
  if (result >= 0) return "cloned";
  if (REFUSED.has(result)) return "refused";
  return FULL.has(result) ? "full" : "failed";
}

/** True if the `result` of a clone call means that the two files are on different file systems. */
export function isOtherFileSystem(result: number): boolean {
  return result === EXDEV;
}

let kept: { address: number; words: Uint32Array } | undefined;

/** The buffer for requests and answers; made at the first use, because it loads native code. */
function argument(): { address: number; words: Uint32Array } {
  if (kept === undefined) {
    const { bytes, address } = newArena(FIEMAP_BYTES + EXTENT_BYTES);
    kept = { address, words: new Uint32Array(bytes.buffer, bytes.byteOffset, (FIEMAP_BYTES + EXTENT_BYTES) / 4) };
  }
  return kept;
}

/** Asks for all extents of an open file. Returns their number or minus errno. With `room` the answer has the first extent, too. */
function mapExtents(fd: number, { flags, room }: { flags: number; room: 0 | 1 }): number {
  const { address, words } = argument();
  words.fill(0);
  words[2] = 0xffffffff;
  words[3] = 0x7fffffff;
  words[4] = flags;
  words[6] = room;
  const result = ioctl(fd, FS_IOC_FIEMAP, address);
  return result < 0 ? result : words[5]!;
}

/** The number of extents of an open file, which decides how long a clone takes; minus errno if the file system does not report it. */
export function extentCount(fd: number): number {
  return mapExtents(fd, { flags: 0, room: 0 });
}

/**
 * Writes out an open file's data and returns true if all of it is in the file system's metadata then, as btrfs stores
 * small files. Such content becomes durable together with its name.
 */
export function isHeldInMetadata(fd: number): boolean {
  if (mapExtents(fd, { flags: FIEMAP_FLAG_SYNC, room: 1 }) !== 1) return false;
  return (argument().words[(FIEMAP_BYTES + EXTENT_FLAGS) / 4]! & FIEMAP_EXTENT_INLINE) !== 0;
}

/** No file system with clones has smaller blocks, so n extents take at least n blocks of this size. */
const SMALLEST_BLOCK = 1024;

/**
 * True if an open file has more than `limit` extents. Checks its `occupied` bytes first, because counting takes a call.
 */
export function isFragmented(fd: number, occupied: number, limit: number): boolean {
  return occupied >= limit * SMALLEST_BLOCK && extentCount(fd) > limit;
}

/**
 * Sets the NOCOW flag of an empty file if the other file has it: btrfs clones only between files with equal flags. True
 * if the flag was set.
 */
export function takeOverNoCow(from: number, to: number): boolean {
  const { address, words } = argument();
  words[0] = 0;
  if (ioctl(from, FS_IOC_GETFLAGS, address) < 0 || (words[0]! & FS_NOCOW_FL) === 0) return false;
  if (ioctl(to, FS_IOC_GETFLAGS, address) < 0) return false;
  words[0] = words[0]! | FS_NOCOW_FL;
  return ioctl(to, FS_IOC_SETFLAGS, address) >= 0;
}

/**
 * Copies a directory's chattr(1) flags that no other call copies. Compression is also an attribute, which these calls
 * would change: directories with that flag are skipped.
 */
export function takeOverMarks(from: number, to: number): void {
  const { address, words } = argument();
  words[0] = 0;
  if (ioctl(from, FS_IOC_GETFLAGS, address) < 0) return;
  const marks = words[0]! & CARRIED;
  if (marks === 0 || (words[0]! & FS_COMPR_FL) !== 0) return;
  if (ioctl(to, FS_IOC_GETFLAGS, address) < 0) return;
  words[0] = words[0]! | marks;
  ioctl(to, FS_IOC_SETFLAGS, address);
}

/** Returns the inode's generation, which tells a reused inode number; null if the file system does not report it. */
export function generationOf(fd: number): number | null {
  const { address, words } = argument();
  words[0] = 0;
  return ioctl(fd, FS_IOC_GETVERSION, address) < 0 ? null : words[0]!;
}
