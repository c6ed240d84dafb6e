import fs from "node:fs";
import { CairnError } from "../../errors.ts";
import { type Arena, arenaOver, bindNative, hasProc, newArena, settleResult } from "../../native.ts";
import {
  EAGAIN,
  EBADF,
  ELOOP,
  ENAMETOOLONG,
  ENODATA,
  ENOSYS,
  ENOTDIR,
  EOPNOTSUPP,
  EPERM,
  EXDEV,
  syscallError,
} from "./errno.ts";
import { printablePath, rawBytes, type RawPath } from "../paths/safe-path.ts";
import {
  AT_FDCWD,
  type AttributeCalls,
  type DescriptorCalls,
  evenLinkMode,
  type NameCalls,
  OPEN,
  STAT,
  type StatBuffer,
  type Syscalls,
  TYPE,
} from "./syscall-abi.ts";
import { withoutShadows } from "./shadow-attributes.ts";
import { insideOwner, namespaceIds, NO_ID, withOutsideIds } from "./user-namespace.ts";

export { errnoName, syscallError } from "./errno.ts";
export * from "./syscall-abi.ts";
export { mayBeSameId, withFormerOwner } from "./user-namespace.ts";

const AT_SYMLINK_NOFOLLOW = 0x100;
const AT_REMOVEDIR = 0x200;
const AT_EMPTY_PATH = 0x1000;
const STATX_MASK = 0xfff | 0x1000;
const GETDENTS64 = process.arch === "arm64" ? 61 : 217;

type Call = (...args: number[]) => number;

function required(signature: string): Call {
  const call = bindNative(signature);
  if (call === null) throw new CairnError("unsupported", `the C library has no ${signature}`);
  return call;
}

const SLASH = 0x2f;
const DOT = 0x2e;
const O_NOFOLLOW = fs.constants.O_NOFOLLOW;
const INTERMEDIATE = fs.constants.O_RDONLY | fs.constants.O_DIRECTORY | O_NOFOLLOW;

const OPENAT2 = 437;
const RESOLVE_NO_LINKS_BENEATH = 0x02 | 0x04 | 0x08;
const RESOLVE_NO_XDEV = 0x01;

/** Uses openat2 if the kernel has it and allows it, else opens name by name. */
function bindOpenBelow(openat: Call, close: Call): Pick<Syscalls, "openBelow" | "openInside"> {
  const openat2 = bindNative("int64_t syscall(int64_t n, int64_t d, uint64_t p, uint64_t how, uint64_t size)");
  const how = newArena(24);
  const words = new Uint32Array(how.bytes.buffer, how.bytes.byteOffset, 6);
  const open = (d: number, path: number, flags: number, resolve = RESOLVE_NO_LINKS_BENEATH): number => {
    words[0] = flags | OPEN.CLOEXEC;
    words[4] = resolve;
    for (;;) {
      const result = settleResult(openat2!(OPENAT2, d, path, how.address, 24));
      // The kernel gives up if an entry is renamed meanwhile.
      if (result !== EAGAIN) return result;
    }
  };
  const dot = arenaOver(Buffer.from(".\0"));
  const probe = openat2 === null ? -1 : open(AT_FDCWD, dot.address, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  if (probe >= 0) {
    close(probe);
    return {
      openBelow: (d, names, n, flags) => open(d, names.address + n, flags),
      openInside: (d, names, n, flags) => open(d, names.address + n, flags, RESOLVE_NO_LINKS_BENEATH | RESOLVE_NO_XDEV),
    };
  }
  const byName = {
    open: (d: number, names: Arena, n: number, flags: number, mode: number) =>
      settleResult(openat(d, names.address + n, flags | OPEN.CLOEXEC, mode)),
    close: (fd: number) => settleResult(close(fd)),
  };
  return { openBelow: (d, names, n, flags) => openByNames(byName, d, names, n, flags), openInside: null };
}

/** Opens one name at a time, for kernels without openat2(2): {@link Syscalls.openBelow}. */
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
    settle: (fd) => settleResult(syncRange(fd, 0, 0, 7)),
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
  // C libraries before 2020 refuse the flag before they look at the descriptor. Newer ones emulate the flag with several calls.
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
    ...bindOpenBelow(openat, close),
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
      // The emulation uses /proc. Without /proc it returns the error for links for every entry.
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

/** Extended attributes by a name below an open directory, for entries that cannot be opened. */
export type AttributesByName = Pick<Syscalls, "llistxattr" | "lgetxattr" | "lsetxattr">;

const EMPTY = new Uint8Array(1);

/** Uses /proc. Without /proc uses the calls of Linux 6.13, and on older kernels opens the entries. */
export function attributesByName(sys: Omit<Syscalls, keyof AttributesByName>): AttributesByName {
  if (hasProc()) return throughProc();
  return directly() ?? byOpening(sys);
}

function throughProc(): AttributesByName {
  const llistxattr = required("int64_t llistxattr(uint64_t p, uint64_t b, size_t l)");
  const lgetxattr = required("int64_t lgetxattr(uint64_t p, uint64_t n, uint64_t b, size_t l)");
  const lsetxattr = required("int lsetxattr(uint64_t p, uint64_t n, uint64_t v, size_t l, int f)");
  const scratch = newArena(8192);
  const path = (dirfd: number, names: Arena, name: number): number => {
    let length = scratch.bytes.length;
    const prefix = `/proc/self/fd/${dirfd}/`;
    let at = Buffer.from(scratch.bytes.buffer, scratch.bytes.byteOffset).write(prefix, 0, "latin1");
    for (let i = name; length > 0; i++, length--) {
      const byte = names.bytes[i]!;
      scratch.bytes[at++] = byte;
      if (byte === 0) break;
    }
    return scratch.address;
  };
  // Written behind the path.
  const called = (attribute: Uint8Array): number => put(scratch, 6000, attribute);
  return {
    llistxattr: (d, names, n, out) =>
      withoutShadows(settleResult(llistxattr(path(d, names, n), out.address, out.bytes.length)), out.bytes),
    lgetxattr: (d, names, n, a, out, o) =>
      settleResult(lgetxattr(path(d, names, n), called(a), out.address + o, out.bytes.length - o)),
    lsetxattr: (d, names, n, a, v) =>
      settleResult(lsetxattr(path(d, names, n), called(a), over(v).address, v.length, 0)),
  };
}

const SETXATTRAT = 463;
const GETXATTRAT = 464;
const LISTXATTRAT = 465;
/** struct xattr_args: the value's address, 8 bytes; its size and flags, 4 each. */
const ARGUMENTS = 16;

/** Null if the kernel lacks these calls or does not allow them. */
export function directly(): AttributesByName | null {
  const list = required("int64_t syscall(int64_t n, int64_t d, uint64_t p, uint64_t f, uint64_t b, uint64_t l)");
  const call = required(
    "int64_t syscall(int64_t n, int64_t d, uint64_t p, uint64_t f, uint64_t a, uint64_t v, uint64_t s)",
  );
  const scratch = newArena(512);
  const called = (attribute: Uint8Array): number => put(scratch, 0, attribute);
  const tried = settleResult(list(LISTXATTRAT, AT_FDCWD, called(Buffer.from(".")), AT_SYMLINK_NOFOLLOW, 0, 0));
  if (tried === ENOSYS || tried === EPERM) return null;
  const value = newArena(ARGUMENTS);
  const view = new DataView(value.bytes.buffer, value.bytes.byteOffset, ARGUMENTS);
  const of = (address: number, size: number): number => {
    view.setBigUint64(0, BigInt(address), true);
    view.setUint32(8, size, true);
    return value.address;
  };
  return {
    llistxattr: (d, names, n, out) => {
      const listed = list(LISTXATTRAT, d, names.address + n, AT_SYMLINK_NOFOLLOW, out.address, out.bytes.length);
      return withoutShadows(settleResult(listed), out.bytes);
    },
    lgetxattr: (d, names, n, a, out, o) => {
      const to = of(out.address + o, out.bytes.length - o);
      return settleResult(call(GETXATTRAT, d, names.address + n, AT_SYMLINK_NOFOLLOW, called(a), to, ARGUMENTS));
    },
    lsetxattr: (d, names, n, a, v) => {
      const from = of(over(v).address, v.length);
      return settleResult(call(SETXATTRAT, d, names.address + n, AT_SYMLINK_NOFOLLOW, called(a), from, ARGUMENTS));
    },
  };
}

const READ = fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK;

/**
 * Reads attributes of files and directories by opening them. Links have no attributes that belong to a state. For
 * pipes, devices and sockets the answer is `EBADF`: their attributes cannot be read.
 */
export function byOpening(sys: Omit<Syscalls, keyof AttributesByName>): AttributesByName {
  const stat = newStatBuffer();
  const scratch = newArena(512);
  const called = (attribute: Uint8Array): Arena => {
    put(scratch, 0, attribute);
    return scratch;
  };
  const opened = (d: number, names: Arena, n: number, ofLink: number, work: (fd: number) => number): number => {
    const looked = sys.stat(d, names, n, stat);
    if (looked < 0) return looked;
    const type = stat.words[STAT.MODE]! >>> 12;
    if (type === TYPE.LINK) return ofLink;
    if (type !== TYPE.FILE && type !== TYPE.DIRECTORY) return EBADF;
    const fd = sys.open(d, names, n, READ, 0);
    if (fd < 0) return fd;
    const result = work(fd);
    sys.close(fd);
    return result;
  };
  return {
    llistxattr: (d, names, n, out) => opened(d, names, n, 0, (fd) => sys.flistxattr(fd, out)),
    lgetxattr: (d, names, n, a, out, o) =>
      opened(d, names, n, ENODATA, (fd) => sys.fgetxattr(fd, called(a), 0, out, o)),
    lsetxattr: (d, names, n, a, v) =>
      opened(d, names, n, EOPNOTSUPP, (fd) => sys.fsetxattr(fd, called(a), 0, over(v), 0, v.length)),
  };
}

/** Writes a name and its NUL. Returns the name's address. */
function put(arena: Arena, at: number, name: Uint8Array): number {
  arena.bytes.set(name, at);
  arena.bytes[at + name.length] = 0;
  return arena.address + at;
}

function over(value: Uint8Array): Arena {
  return arenaOver(value.length === 0 ? EMPTY : value);
}

function deviceNumber(major: number, minor: number): number {
  // glibc's makedev for majors and minors below 2^20, the largest in Linux.
  return (minor & 0xff) + (major & 0xfff) * 256 + Math.floor(minor / 256) * 2 ** 20;
}

export function newStatBuffer(): StatBuffer {
  const arena = newArena(256);
  return { arena, words: new Uint32Array(arena.bytes.buffer, arena.bytes.byteOffset, 64) };
}

let chosen: Syscalls | null = null;

/** Returns the system calls of this thread. Throws `unsupported` if the system has none. */
export function syscalls(): Syscalls {
  return (chosen ??= withOutsideIds(nativeSyscalls(), { arenaOver, bindNative, newArena, settleResult }));
}

/** Returns an entry's owner as {@link Syscalls} tell it, whose stat by node:fs is `facts`; {@link NO_ID} if it is gone. */
export function outsideOwner(
  path: RawPath,
  facts: Record<"uid" | "gid", number | bigint>,
): { uid: number; gid: number } {
  if (namespaceIds() === null) return { uid: Number(facts.uid), gid: Number(facts.gid) };
  const [name, out] = [arenaOver(Buffer.concat([rawBytes(path), Buffer.alloc(1)])), newStatBuffer()];
  if (syscalls().stat(AT_FDCWD, name, 0, out) < 0) return { uid: NO_ID, gid: NO_ID };
  return { uid: out.words[STAT.UID]!, gid: out.words[STAT.GID]! };
}

/**
 * Writes a name and its NUL at an offset of an arena. Returns the offset after both. If the arena is too small, throws
 * the system's error for a name that is too long.
 */
export function putName(arena: Arena, offset: number, name: Uint8Array): number {
  if (offset + name.length >= arena.bytes.length)
    throw syscallError(ENAMETOOLONG, `there is no room for a name of ${name.length} bytes`);
  arena.bytes.set(name, offset);
  arena.bytes[offset + name.length] = 0;
  return offset + name.length + 1;
}

/**
 * Opens a directory by absolute path. Returns the descriptor. Throws system errors, also for a link to a directory, and
 * `conflict` if another user has put a link into the path.
 */
export function openDirectory(path: string | Buffer): number {
  return openOwnWay(path, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY | fs.constants.O_NOFOLLOW);
}

/**
 * Opens a directory with these flags, which also decide whether a last link is followed. Throws `conflict` if another
 * user's link led there.
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

/** Calls `work` with an open directory. Throws the errors of {@link openDirectory}. */
export function inDirectory<T>(path: string | Buffer, work: (fd: number) => T): T {
  const fd = openDirectory(path);
  try {
    return work(fd);
  } finally {
    fs.closeSync(fd);
  }
}

const ROOT = Buffer.from("/");
const PATH_ROOM = 4096;
const MOST_LINKS = 40;
/** Flags for one name of a path: a directory that this user may only search, and no link. */
const STEP = fs.constants.O_DIRECTORY | fs.constants.O_NOFOLLOW | OPEN.PATH;
const THROUGH_DESCRIPTOR = /^\/proc\/self\/fd\/\d+(?:\/[^/]*)?$/;

/**
 * Throws `conflict` if an open directory was reached through a symbolic link that another user may have made: the owner
 * of a folder on the way can replace a folder in it by a link at any moment. Links of root and of this user in their
 * own folders are followed.
 */
export function requireOwnWay(sys: Syscalls, fd: number, path: string | Buffer): void {
  const bytes = Buffer.from(path as string);
  // One call is enough in most cases: if the kernel's path of the descriptor is `path`, no link was followed.
  if (isNameOf(fd, bytes) || THROUGH_DESCRIPTOR.test(bytes.toString("latin1"))) return;
  const again = new OwnWay(sys).open(bytes);
  if (again < 0) throw syscallError(again, `open ${printablePath(bytes)} name by name`);
  const [one, other] = [fs.fstatSync(fd, { bigint: true }), fs.fstatSync(again, { bigint: true })];
  sys.close(again);
  if (one.dev !== other.dev || one.ino !== other.ino) throw movedAway(bytes);
}

function isNameOf(fd: number, path: Buffer): boolean {
  try {
    return fs.readlinkSync(`/proc/self/fd/${fd}`, { encoding: "buffer" }).equals(path);
  } catch {
    // /proc is missing, or the path is longer than /proc shows.
    return false;
  }
}

/** Opens a path name by name, each below the directory opened before. */
class OwnWay {
  readonly #sys: Syscalls;
  readonly #name: Arena = newArena(PATH_ROOM);
  readonly #target: Arena = newArena(PATH_ROOM);
  readonly #stat: StatBuffer = newStatBuffer();
  readonly #trusted = [0, process.geteuid?.()];

  constructor(sys: Syscalls) {
    this.#sys = sys;
  }

  /** Returns a descriptor or minus errno. */
  open(path: Buffer): number {
    let fd = this.#step(AT_FDCWD, path[0] === SLASH ? ROOT : Buffer.from("."));
    let rest = namesOf(path);
    for (let links = 0; fd >= 0 && rest.length > 0;) {
      const [name, ...others] = rest;
      let next = this.#step(fd, name!);
      rest = others;
      if (next === ENOTDIR || next === ELOOP) {
        const target = this.#targetOf(fd, { name: name!, path });
        if (target !== null && links++ >= MOST_LINKS) next = ELOOP;
        else if (target !== null) {
          next = this.#step(target[0] === SLASH ? AT_FDCWD : fd, target[0] === SLASH ? ROOT : Buffer.from("."));
          rest = [...namesOf(target), ...others];
        }
      }
      this.#sys.close(fd);
      fd = next;
    }
    return fd;
  }

  #step(fd: number, name: Buffer): number {
    return this.#put(name) ? this.#sys.open(fd, this.#name, 0, STEP, 0) : ENAMETOOLONG;
  }

  /** Returns a link's target; null if the entry is not a link. */
  #targetOf(fd: number, { name, path }: { name: Buffer; path: Buffer }): Buffer | null {
    const { words } = this.#stat;
    this.#put(name);
    if (this.#sys.stat(fd, this.#name, 0, this.#stat) < 0 || words[STAT.MODE]! >>> 12 !== TYPE.LINK) return null;
    const owners = [insideOwner(words), fs.fstatSync(fd).uid];
    const length = this.#sys.readlink(fd, this.#name, 0, this.#target);
    if (length <= 0 || length >= PATH_ROOM) return null;
    const other = owners.find((owner) => !this.#trusted.includes(owner));
    if (other !== undefined) {
      this.#sys.close(fd);
      throw ledAway(path, name, other);
    }
    return Buffer.from(this.#target.bytes.slice(0, length));
  }

  #put(name: Buffer): boolean {
    if (name.length >= PATH_ROOM) return false;
    this.#name.bytes.set(name);
    this.#name.bytes[name.length] = 0;
    return true;
  }
}

function namesOf(path: Buffer): Buffer[] {
  const names: Buffer[] = [];
  for (let at = 0; at < path.length;) {
    const slash = path.indexOf(SLASH, at);
    const end = slash < 0 ? path.length : slash;
    if (end > at) names.push(path.subarray(at, end));
    at = end + 1;
  }
  return names;
}

const HINT = "find the user or program that changes the folders above it, then try again";

function ledAway(path: Buffer, link: Buffer, owner: number): CairnError {
  const shown = `the symbolic link ${printablePath(link)} of the user ${owner}`;
  return new CairnError("conflict", `${printablePath(path)} lies behind ${shown}, who can point it anywhere`, {
    hint: HINT,
  });
}

function movedAway(path: Buffer): CairnError {
  return new CairnError("conflict", `${printablePath(path)} was moved meanwhile`, { hint: HINT });
}
