import fs from "node:fs";
import { CairnError } from "../../errors.ts";
import { type Arena, arenaOver, bindNative, lastErrno, newArena, settleResult } from "../../native.ts";
import { attributesByName, type AttributesByName } from "./attributes-by-name.ts";
import { EAGAIN, EBADF, ENAMETOOLONG, EOPNOTSUPP } from "./errno.ts";
import { openByNames } from "./open-below.ts";
import { requireOwnWay } from "./real-place.ts";
import {
  AT_FDCWD,
  type AttributeCalls,
  type DescriptorCalls,
  EINTR,
  evenLinkMode,
  type NameCalls,
  newStatBuffer,
  OPEN,
  STAT,
  type Syscalls,
  TYPE,
} from "./syscall-abi.ts";
import { withoutShadows } from "./shadow-attributes.ts";
import { syscallError } from "./syscall-error.ts";

export * from "./syscall-abi.ts";
export * from "./syscall-error.ts";

const AT_SYMLINK_NOFOLLOW = 0x100;
const AT_REMOVEDIR = 0x200;
const AT_EMPTY_PATH = 0x1000;
const STATX_MASK = 0x7ff | 0x1000;
const GETDENTS64 = process.arch === "arm64" ? 61 : 217;

type Call = (...args: number[]) => number;

function bind(signature: string): Call {
  const call = bindNative(signature);
  if (call === null) throw new CairnError("unsupported", `the C library has no ${signature}`);
  return (...args) => {
    for (;;) {
      const result = call(...args);
      if (result >= 0) return result;
      const errno = lastErrno();
      if (errno !== EINTR) return -errno;
    }
  };
}

const OPENAT2 = 437;
const RESOLVE_NO_LINKS_BENEATH = 0x02 | 0x04 | 0x08;

/** openat2 where the kernel has it and nothing forbids it, else the same by single names. */
function bindOpenBelow(openat: Call, close: Call): Syscalls["openBelow"] {
  const openat2 = bindNative("int64_t syscall(int64_t n, int64_t d, uint64_t p, uint64_t how, uint64_t size)");
  const how = newArena(24);
  const words = new Uint32Array(how.bytes.buffer, how.bytes.byteOffset, 6);
  words[4] = RESOLVE_NO_LINKS_BENEATH;
  const open = (d: number, path: number, flags: number): number => {
    words[0] = flags | OPEN.CLOEXEC;
    for (;;) {
      const result = settleResult(openat2!(OPENAT2, d, path, how.address, 24));
      // The kernel gives up when something is renamed meanwhile.
      if (result !== EAGAIN) return result;
    }
  };
  const dot = arenaOver(Buffer.from(".\0"));
  const probe = openat2 === null ? -1 : open(AT_FDCWD, dot.address, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  if (probe >= 0) {
    close(probe);
    return (d, names, n, flags) => open(d, names.address + n, flags);
  }
  const byName = {
    open: (d: number, names: Arena, n: number, flags: number, mode: number) =>
      settleResult(openat(d, names.address + n, flags | OPEN.CLOEXEC, mode)),
    close: (fd: number) => settleResult(close(fd)),
  };
  return (d, names, n, flags) => openByNames(byName, d, names, n, flags);
}

function required(signature: string): Call {
  const call = bindNative(signature);
  if (call === null) throw new CairnError("unsupported", `the C library has no ${signature}`);
  return call;
}

/** Binds futimens(2) and utimensat(2), which set nanoseconds; struct timespec is two 64-bit words. */
function bindTimes(): Syscalls["utimens"] {
  const utimensat = required("int utimensat(int d, uint64_t n, uint64_t t, int f)");
  const futimens = required("int futimens(int fd, uint64_t t)");
  const times = newArena(32);
  const nanoseconds = new Uint32Array(times.bytes.buffer, times.bytes.byteOffset, 8);
  const seconds = new BigInt64Array(times.bytes.buffer, times.bytes.byteOffset, 4);
  return (d, names, n, s, ns) => {
    seconds[0] = BigInt(s);
    seconds[2] = seconds[0];
    nanoseconds[2] = ns;
    nanoseconds[6] = ns;
    if (names.bytes[n] === 0) return settleResult(futimens(d, times.address));
    return settleResult(utimensat(d, names.address + n, times.address, AT_SYMLINK_NOFOLLOW));
  };
}

function nativeSyscalls(): Syscalls {
  const calls = { ...descriptorCalls(), ...nameCalls(), ...attributeCalls() };
  return { ...calls, ...attributesByName(calls) };
}

function descriptorCalls(): DescriptorCalls {
  const close = required("int close(int fd)");
  const getdents = required("int64_t syscall(int64_t n, int64_t fd, uint64_t b, uint64_t l)");
  const statx = required("int statx(int d, uint64_t n, int f, uint m, uint64_t b)");
  const pread = required("int64_t pread(int fd, uint64_t b, size_t n, int64_t o)");
  const pwrite = required("int64_t pwrite(int fd, uint64_t b, size_t n, int64_t o)");
  const fchmod = required("int fchmod(int fd, uint m)");
  const fchown = required("int fchown(int fd, uint u, uint g)");
  const ftruncate = required("int ftruncate(int fd, int64_t l)");
  const lseek = required("int64_t lseek(int fd, int64_t o, int w)");
  const syncRange = required("int sync_file_range(int fd, int64_t o, int64_t n, uint f)");
  const fdatasync = bind("int fdatasync(int fd)");
  const fsync = bind("int fsync(int fd)");
  const syncfs = bind("int syncfs(int fd)");
  const empty = newArena(1);
  return {
    close: (fd) => settleResult(close(fd)),
    getdents: (fd, buffer, offset) =>
      settleResult(getdents(GETDENTS64, fd, buffer.address + offset, buffer.bytes.length - offset)),
    fstat: (fd, out) => settleResult(statx(fd, empty.address, AT_EMPTY_PATH, STATX_MASK, out.arena.address)),
    read: (fd, b, o, l, p) => settleResult(pread(fd, b.address + o, l, p)),
    write: (fd, b, o, l, p) => settleResult(pwrite(fd, b.address + o, l, p)),
    fchmod: (fd, mode) => settleResult(fchmod(fd, mode)),
    fchown: (fd, u, g) => settleResult(fchown(fd, u, g)),
    ftruncate: (fd, size) => settleResult(ftruncate(fd, size)),
    seek: (fd, offset, whence) => settleResult(lseek(fd, offset, whence)),
    startWriteback: (fd) => settleResult(syncRange(fd, 0, 0, 2)),
    settle: (fd) => settleResult(syncRange(fd, 0, 0, 7)),
    fdatasync,
    fsync,
    syncfs,
  };
}

function nameCalls(): NameCalls {
  const openat = required("int openat(int d, uint64_t n, int f, uint m)");
  const close = required("int close(int fd)");
  const statx = required("int statx(int d, uint64_t n, int f, uint m, uint64_t b)");
  const readlinkat = required("int64_t readlinkat(int d, uint64_t n, uint64_t b, size_t l)");
  const mkdirat = required("int mkdirat(int d, uint64_t n, uint m)");
  const symlinkat = required("int symlinkat(uint64_t t, int d, uint64_t n)");
  const linkat = required("int linkat(int a, uint64_t b, int c, uint64_t d, int f)");
  const mknodat = required("int mknodat(int d, uint64_t n, uint m, uint64_t dev)");
  const unlinkat = required("int unlinkat(int d, uint64_t n, int f)");
  const renameat2 = required("int renameat2(int a, uint64_t b, int c, uint64_t d, uint f)");
  const fchmodat = required("int fchmodat(int d, uint64_t n, uint m, int f)");
  // C libraries before 2020 refuse the flag before they look at anything else; with it they ask the kernel in several steps.
  const anyName = newArena(2);
  anyName.bytes.set([0x78, 0]);
  const tried = settleResult(fchmodat(-1, anyName.address, 0, AT_SYMLINK_NOFOLLOW));
  const chmodFlags = tried === EBADF ? AT_SYMLINK_NOFOLLOW : 0;
  const looked = newStatBuffer();
  const mayBeLink = (d: number, names: Arena, n: number): boolean =>
    settleResult(statx(d, names.address + n, AT_SYMLINK_NOFOLLOW, STATX_MASK, looked.arena.address)) < 0 ||
    looked.words[STAT.MODE]! >>> 12 === TYPE.LINK;
  const fchownat = required("int fchownat(int d, uint64_t n, uint u, uint g, int f)");
  const utimens = bindTimes();
  return {
    open: (d, names, n, flags, mode) => settleResult(openat(d, names.address + n, flags | OPEN.CLOEXEC, mode)),
    openBelow: bindOpenBelow(openat, close),
    stat: (d, names, n, out) => {
      const result = settleResult(statx(d, names.address + n, AT_SYMLINK_NOFOLLOW, STATX_MASK, out.arena.address));
      evenLinkMode(out.words);
      return result;
    },
    readlink: (d, names, n, out) => settleResult(readlinkat(d, names.address + n, out.address, out.bytes.length)),
    mkdir: (d, names, n, mode) => settleResult(mkdirat(d, names.address + n, mode)),
    symlink: (t, to, d, names, n) => settleResult(symlinkat(t.address + to, d, names.address + n)),
    link: (fd, from, fn, d, names, n) => settleResult(linkat(fd, from.address + fn, d, names.address + n, 0)),
    mknod: (d, names, n, mode, major, minor) =>
      settleResult(mknodat(d, names.address + n, mode, deviceNumber(major, minor))),
    unlink: (d, names, n, dir) => settleResult(unlinkat(d, names.address + n, dir ? AT_REMOVEDIR : 0)),
    rename: (fd, from, fn, d, to, n, flags) => settleResult(renameat2(fd, from.address + fn, d, to.address + n, flags)),
    chmod: (d, names, n, mode) => {
      const result = settleResult(fchmodat(d, names.address + n, mode, chmodFlags));
      // In several steps it goes through /proc, and without one says of everything what it says of links.
      if (result !== EOPNOTSUPP || chmodFlags === 0 || mayBeLink(d, names, n)) return result;
      return settleResult(fchmodat(d, names.address + n, mode, 0));
    },
    lchown: (d, names, n, u, g) => settleResult(fchownat(d, names.address + n, u, g, AT_SYMLINK_NOFOLLOW)),
    utimens,
  };
}

function attributeCalls(): Omit<AttributeCalls, keyof AttributesByName> {
  const flistxattr = required("int64_t flistxattr(int fd, uint64_t b, size_t l)");
  const fgetxattr = required("int64_t fgetxattr(int fd, uint64_t n, uint64_t b, size_t l)");
  const fsetxattr = required("int fsetxattr(int fd, uint64_t n, uint64_t v, size_t l, int f)");
  const fremovexattr = required("int fremovexattr(int fd, uint64_t n)");
  return {
    flistxattr: (fd, out) => withoutShadows(settleResult(flistxattr(fd, out.address, out.bytes.length)), out.bytes),
    fgetxattr: (fd, names, n, out, o) =>
      settleResult(fgetxattr(fd, names.address + n, out.address + o, out.bytes.length - o)),
    fsetxattr: (fd, names, n, v, o, l) => settleResult(fsetxattr(fd, names.address + n, v.address + o, l, 0)),
    fremovexattr: (fd, names, n) => settleResult(fremovexattr(fd, names.address + n)),
  };
}

function deviceNumber(major: number, minor: number): number {
  // glibc's makedev for majors and minors below 2^20, which is all that Linux has.
  return (minor & 0xff) + (major & 0xfff) * 256 + Math.floor(minor / 256) * 2 ** 20;
}

let chosen: Syscalls | null = null;

/** Returns the system calls of this thread. Throws `unsupported` where there are none. */
export function syscalls(): Syscalls {
  chosen ??= nativeSyscalls();
  return chosen;
}

/**
 * Writes a name and its NUL at an offset of an arena; returns the offset after it. Throws as a system does for a name that
 * is too long for it where there is no room for it.
 */
export function putName(arena: Arena, offset: number, name: Uint8Array): number {
  if (offset + name.length >= arena.bytes.length)
    throw syscallError(ENAMETOOLONG, `there is no room for a name of ${name.length} bytes`);
  arena.bytes.set(name, offset);
  arena.bytes[offset + name.length] = 0;
  return offset + name.length + 1;
}

/**
 * Opens a directory by absolute path for holding it; the descriptor, or throws, also for a link to one, and `conflict`
 * where another user has put a link among those above it.
 */
export function openDirectory(path: string | Buffer): number {
  return openOwnWay(path, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY | fs.constants.O_NOFOLLOW);
}

/**
 * Opens a directory with flags that say whether it is held for reading, and whether a last link is followed, if it is
 * nobody else's.
 */
export function openOwnWay(path: string | Buffer, flags: number): number {
  const fd = fs.openSync(path, flags);
  try {
    requireOwnWay(syscalls(), fd, path);
  } catch (error) {
    fs.closeSync(fd);
    throw error;
  }
  return fd;
}

/** Works on a directory that is held meanwhile; throws as {@link openDirectory} does. */
export function inDirectory<T>(path: string | Buffer, work: (fd: number) => T): T {
  const fd = openDirectory(path);
  try {
    return work(fd);
  } finally {
    fs.closeSync(fd);
  }
}
