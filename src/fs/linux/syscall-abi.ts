import type { Arena } from "../../native.ts";

/**
 * The system calls that Cairn needs beyond node:fs, relative to held directories and on raw bytes.
 *
 * Names are NUL-terminated bytes at an offset of an arena. A call returns a value ≥ 0, or minus errno;
 * nothing throws.
 */
export interface Syscalls {
  /** openat(2); flags from fs.constants and {@link OPEN}. Always close-on-exec. */
  open(dirfd: number, names: Arena, name: number, flags: number, mode: number): number;
  /**
   * openat2(2) for an existing entry by a path of up to 4095 bytes: no link is followed on the way or at the end,
   * and nothing above `dirfd` is reached.
   */
  openBelow(dirfd: number, names: Arena, path: number, flags: number): number;
  /** Like `openBelow`, but `EXDEV` if a mount point is on the way or at the end. Null without openat2(2). */
  openInside: Syscalls["openBelow"] | null;
  close(fd: number): number;
  /** getdents64(2): fills the buffer from `offset` with kernel dirents. Returns the bytes filled, 0 at the end. */
  getdents(fd: number, buffer: Arena, offset: number): number;
  /** statx(2) without following a last link; an empty name means the descriptor itself. */
  stat(dirfd: number, names: Arena, name: number, out: StatBuffer): number;
  fstat(fd: number, out: StatBuffer): number;
  read(fd: number, buffer: Arena, offset: number, length: number, position: number): number;
  write(fd: number, buffer: Arena, offset: number, length: number, position: number): number;
  readlink(dirfd: number, names: Arena, name: number, out: Arena): number;
  flistxattr(fd: number, out: Arena): number;
  fgetxattr(fd: number, names: Arena, name: number, out: Arena, offset: number): number;
  fsetxattr(fd: number, names: Arena, name: number, value: Arena, offset: number, length: number): number;
  fremovexattr(fd: number, names: Arena, name: number): number;
  /** llistxattr/lgetxattr/lsetxattr by path, for entries that cannot be opened (links, pipes, devices). */
  llistxattr(dirfd: number, names: Arena, name: number, out: Arena): number;
  lgetxattr(dirfd: number, names: Arena, name: number, attribute: Uint8Array, out: Arena, offset: number): number;
  lsetxattr(dirfd: number, names: Arena, name: number, attribute: Uint8Array, value: Uint8Array): number;
  mkdir(dirfd: number, names: Arena, name: number, mode: number): number;
  symlink(target: Arena, targetOffset: number, dirfd: number, names: Arena, name: number): number;
  link(fromDirfd: number, from: Arena, fromName: number, dirfd: number, names: Arena, name: number): number;
  mknod(dirfd: number, names: Arena, name: number, mode: number, major: number, minor: number): number;
  unlink(dirfd: number, names: Arena, name: number, directory: boolean): number;
  /** renameat2(2) with {@link RENAME} flags. */
  rename(
    fromDirfd: number,
    from: Arena,
    fromName: number,
    dirfd: number,
    to: Arena,
    toName: number,
    flags: number,
  ): number;
  fchmod(fd: number, mode: number): number;
  /** chmod of a non-link by name. */
  chmod(dirfd: number, names: Arena, name: number, mode: number): number;
  fchown(fd: number, uid: number, gid: number): number;
  lchown(dirfd: number, names: Arena, name: number, uid: number, gid: number): number;
  /** Sets mtime and atime to exactly this time; an empty name means the descriptor itself. */
  utimens(dirfd: number, names: Arena, name: number, seconds: number, nanoseconds: number): number;
  ftruncate(fd: number, size: number): number;
  /** lseek with SEEK_DATA (3) or SEEK_HOLE (4); ENXIO past the last data. */
  seek(fd: number, offset: number, whence: 3 | 4): number;
  /** sync_file_range over the whole file: waits until all data was sent to the disk. */
  settle(fd: number): number;
}

/** Calls on descriptors, on names, and on extended attributes: the parts of an implementation. */
export type DescriptorCalls = Pick<
  Syscalls,
  "close" | "getdents" | "fstat" | "read" | "write" | "fchmod" | "fchown" | "ftruncate" | "seek" | "settle"
>;
export type AttributeCalls = Pick<
  Syscalls,
  "flistxattr" | "fgetxattr" | "fsetxattr" | "fremovexattr" | "llistxattr" | "lgetxattr" | "lsetxattr"
>;
export type NameCalls = Omit<Syscalls, keyof DescriptorCalls | keyof AttributeCalls>;

/** Open flags that node:fs lacks. */
export const OPEN = {
  CLOEXEC: 0o2000000,
  PATH: 0o10000000,
} as const;

export const RENAME = { NOREPLACE: 1, EXCHANGE: 2 } as const;
export const AT_FDCWD = -100;
/** Bits of a mode: a program runs as its file's owner, or group. */
export const SETUID = 0o4000;
export const SETGID = 0o2000;
export const EINTR = 4;
/** The clock of inodes ticks at least this often: of two writes within a tick only the first changes a time. */
export const TICK_MS = 10;

/** The result of statx: 256 bytes as u32 words. */
export interface StatBuffer {
  readonly arena: Arena;
  readonly words: Uint32Array;
}

/** Word offsets in a {@link StatBuffer} (64-bit values: low word here, high word next). */
export const STAT = {
  MASK: 0,
  ATTRIBUTES: 2,
  NLINK: 4,
  UID: 5,
  GID: 6,
  MODE: 7,
  INO: 8,
  SIZE: 10,
  BLOCKS: 12,
  BIRTH: 20,
  BIRTH_NS: 22,
  CTIME: 24,
  CTIME_NS: 26,
  MTIME: 28,
  MTIME_NS: 30,
  RDEV_MAJOR: 32,
  RDEV_MINOR: 33,
  DEV_MAJOR: 34,
  DEV_MINOR: 35,
  MOUNT_ID: 36,
} as const;

/** Bit of the ATTRIBUTES word: the entry is the root of a mount. */
export const ATTRIBUTE_MOUNT_ROOT = 0x2000;
/** Bits of the ATTRIBUTES word: flags that `chattr` sets. */
export const ATTRIBUTE_IMMUTABLE = 0x10;
export const ATTRIBUTE_APPEND = 0x20;

export const TYPE = { PIPE: 1, CHARDEV: 2, DIRECTORY: 4, BLOCKDEV: 6, FILE: 8, LINK: 10, SOCKET: 12 } as const;

/**
 * Sets the permission bits of a symbolic link to 0777, as Linux's own file systems have them. macOS and BSD, and mounts
 * from there, report bits that depend on the umask and have no effect.
 */
export function evenLinkMode(words: Uint32Array): void {
  if ((words[STAT.MODE]! & 0xf000) >>> 12 === TYPE.LINK) words[STAT.MODE] = (TYPE.LINK << 12) | 0o777;
}

/** A 64-bit unsigned value of two words as a number (exact below 2^53). */
export function wide(words: Uint32Array, index: number): number {
  return words[index + 1]! * 4294967296 + words[index]!;
}

/** A 64-bit signed value of two words as a number. */
export function signedWide(words: Uint32Array, index: number): number {
  return (words[index + 1]! | 0) * 4294967296 + words[index]!;
}

const CONTENT_WORDS = [
  STAT.SIZE,
  STAT.SIZE + 1,
  STAT.MTIME,
  STAT.MTIME_NS,
  STAT.CTIME,
  STAT.CTIME_NS,
  STAT.INO,
  STAT.INO + 1,
];

/** True if the times and other fields show no change between two looks at an entry. */
export function sameContentStat(a: Uint32Array, b: Uint32Array): boolean {
  for (const word of CONTENT_WORDS) if (a[word] !== b[word]) return false;
  return true;
}
