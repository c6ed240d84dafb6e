import fs from "node:fs";
import os from "node:os";
import { type Arena, bindNative, lastErrno, type NativeFunction, newArena } from "../../native.ts";
import { ENOSYS, EXDEV } from "./errno.ts";
import { EINTR, type Syscalls } from "./syscall-abi.ts";

/** Clones of files: a second file that shares the first one's blocks until either is written to. */

const FICLONE = 0x40049409;
const FS_IOC_FIEMAP = 0xc020660b;
const FIEMAP_FLAG_SYNC = 1;
const FIEMAP_EXTENT_INLINE = 0x200;
/** Bytes of the question, and of each extent that is told of; in the latter its flags. */
const FIEMAP_BYTES = 32;
const EXTENT_BYTES = 56;
const EXTENT_FLAGS = 40;
const FS_IOC_GETFLAGS = 0x80086601;
const FS_IOC_SETFLAGS = 0x40086602;
const FS_IOC_GETVERSION = 0x80087601;
const FS_NOCOW_FL = 0x00800000;
const FS_COMPR_FL = 0x4;
/** Written at once, not dumped, access times not kept, directory written at once, and what is made in it not copied on write. */
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
 * Makes an open empty file a clone of another, in one moment: 0, or minus errno (`cloneAnswer` says what that means).
 * What has not been written back of the first is written first. Holes stay; metadata is not touched.
 */
export function cloneFile(from: number, to: number): number {
  return ioctl(to, FICLONE, from);
}

/** A name in a held directory that stands for nothing yet. */
export interface NewName {
  directory: number;
  names: Arena;
  name: number;
}

/** Makes a new file that is a clone of an open one: its descriptor, or minus errno. */
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

/**
 * Returns what the result of these calls says: refused for this file or file system (a copy may do), no space, or
 * failed.
 */
export function cloneAnswer(result: number): "cloned" | "refused" | "full" | "failed" {
  if (result >= 0) return "cloned";
  if (REFUSED.has(result)) return "refused";
  return FULL.has(result) ? "full" : "failed";
}

/** True when the two files lie on different file systems. */
export function isOtherFileSystem(result: number): boolean {
  return result === EXDEV;
}

let kept: { address: number; words: Uint32Array } | undefined;

/** Room for what the calls below ask and answer; made when it is first wanted, since it loads native code. */
function argument(): { address: number; words: Uint32Array } {
  if (kept === undefined) {
    const { bytes, address } = newArena(FIEMAP_BYTES + EXTENT_BYTES);
    kept = { address, words: new Uint32Array(bytes.buffer, bytes.byteOffset, (FIEMAP_BYTES + EXTENT_BYTES) / 4) };
  }
  return kept;
}

/** Asks about all of an open file's extents: how many there are, or minus errno. With `room` the first is told of, too. */
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

/** Number of extents of an open file, which a clone takes time for; minus errno where the file system does not say. */
export function extentCount(fd: number): number {
  return mapExtents(fd, { flags: 0, room: 0 });
}

/**
 * Writes out what an open file holds and tells whether all of it lies in the file system's metadata then, as btrfs has
 * small files: it becomes durable with the names and at the same instant as they do.
 */
export function isHeldInMetadata(fd: number): boolean {
  if (mapExtents(fd, { flags: FIEMAP_FLAG_SYNC, room: 1 }) !== 1) return false;
  return (argument().words[(FIEMAP_BYTES + EXTENT_FLAGS) / 4]! & FIEMAP_EXTENT_INLINE) !== 0;
}

/** No file system that clones has smaller blocks, so so many extents have at least so many of these. */
const SMALLEST_BLOCK = 1024;

/** True when an open file that occupies so many bytes is in more pieces than `limit`. Bytes tell first, since counting takes a call. */
export function isFragmented(fd: number, occupied: number, limit: number): boolean {
  return occupied >= limit * SMALLEST_BLOCK && extentCount(fd) > limit;
}

/**
 * Gives an empty file the mark "written in place" when the other has it: btrfs clones only between files that agree.
 * True when it was set.
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
 * Gives a directory the marks of another that chattr(1) sets and that nothing else carries over. Compression is an
 * attribute, which these calls would change: where it is set they are left alone.
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

/**
 * Returns a number that tells an open file from another one that had its inode number before; null where the file
 * system does not say.
 */
export function generationOf(fd: number): number | null {
  const { address, words } = argument();
  words[0] = 0;
  return ioctl(fd, FS_IOC_GETVERSION, address) < 0 ? null : words[0]!;
}
