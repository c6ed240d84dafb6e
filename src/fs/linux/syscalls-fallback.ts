import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import { type Arena, onLinux } from "../../native.ts";
import { bindClonefile } from "./darwin.ts";
import { DirentReader } from "./dirent-reader.ts";
import { EBADF, EEXIST, EINVAL, ENOSYS, ENXIO, EOPNOTSUPP, EPERM } from "./errno.ts";
import { bindExactTimes } from "./exact-times.ts";
import { readMounts } from "./mounts.ts";
import { openByNames } from "./open-below.ts";
import {
  AT_FDCWD,
  ATTRIBUTE_MOUNT_ROOT,
  type AttributeCalls,
  type DescriptorCalls,
  evenLinkMode,
  type NameCalls,
  RENAME,
  STAT,
  type StatBuffer,
  type Syscalls,
  TYPE,
} from "./syscall-abi.ts";

const CODES: Record<string, number> = os.constants.errno;
const LINUX = onLinux();
const BILLION = 1_000_000_000n;
const SEEK_DATA = 3;

/**
 * Descriptors of directories and their paths, where no /proc gives a descriptor's entries a path.
 * A directory that is renamed while it is held is lost from sight there.
 */
const held = new Map<number, Buffer>();

/** Makes names relative to a directory that was opened elsewhere usable; only needed, and only done, without /proc. */
export function holdDirectory(fd: number, path: string | Buffer): void {
  if (!LINUX) held.set(fd, Buffer.from(path as string));
}

/**
 * The system calls over node:fs, for macOS and for machines where koffi does not load. Slow, and less exact: without koffi
 * times are set to what a double of seconds tells apart, about 240 ns now (before 1970: milliseconds); there are no extended attributes
 * (none listed, `ENOTSUP` on setting) and no holes (all is data), pipes and devices are made by the commands
 * `mkfifo` and `mknod`, sockets not at all (`EPERM`), `EXCHANGE` gives `EINVAL` and `syncfs` gives `ENOSYS`.
 */
export function fallbackSyscalls(): Syscalls {
  const calls = {
    native: false,
    ...timeCalls(),
    cloneAs: process.platform === "darwin" ? bindClonefile() : process.platform === "linux" ? cloneByNode : null,
    ...descriptorCalls(new DirentReader(pathOfDescriptor)),
    ...nameCalls(),
    ...attributeCalls(),
  };
  return { ...calls, openBelow: (d, names, n, flags) => openByNames(calls, d, names, n, flags) };
}

function descriptorCalls(reader: DirentReader): DescriptorCalls {
  return {
    close: (fd) => {
      reader.forget(fd);
      held.delete(fd);
      return done(() => fs.closeSync(fd));
    },
    getdents: (fd, buffer, offset) => {
      // What is mounted among the entries is asked for after they were listed.
      mounts = null;
      return attempt(() => reader.read(fd, buffer.bytes, offset));
    },
    fstat: (fd, out) => done(() => fillStat(out, fs.fstatSync(fd, { bigint: true }))),
    read: (fd, b, offset, length, position) => attempt(() => fs.readSync(fd, b.bytes, offset, length, position)),
    write: (fd, b, offset, length, position) => attempt(() => fs.writeSync(fd, b.bytes, offset, length, position)),
    fchmod: (fd, mode) => done(() => fs.fchmodSync(fd, mode)),
    fchown: (fd, uid, gid) => done(() => fs.fchownSync(fd, uid, gid)),
    ftruncate: (fd, size) => done(() => fs.ftruncateSync(fd, size)),
    seek: (fd, offset, whence) =>
      attempt(() => {
        const { size } = fs.fstatSync(fd);
        if (offset >= size) return ENXIO;
        return whence === SEEK_DATA ? offset : size;
      }),
    startWriteback: () => 0,
    settle: (fd) => done(() => fs.fdatasyncSync(fd)),
    fdatasync: (fd) => done(() => fs.fdatasyncSync(fd)),
    fsync: (fd) => done(() => fs.fsyncSync(fd)),
    syncfs: () => ENOSYS,
  };
}

function nameCalls(): Omit<NameCalls, "openBelow" | "utimens"> {
  return {
    open: (d, names, n, flags, mode) => attempt(() => openHeld(pathOf(d, names, n), flags, mode)),
    stat: (d, names, n, out) => done(() => statName(d, names, n, out)),
    readlink: (d, names, n, out) =>
      attempt(() => {
        const target = fs.readlinkSync(pathOf(d, names, n), { encoding: "buffer" });
        const length = Math.min(target.length, out.bytes.length);
        out.bytes.set(target.subarray(0, length));
        return length;
      }),
    mkdir: (d, names, n, mode) => done(() => fs.mkdirSync(pathOf(d, names, n), mode)),
    symlink: (t, at, d, names, n) => done(() => fs.symlinkSync(nameAt(t, at), pathOf(d, names, n))),
    link: (fd, from, fn, d, names, n) => linkItself(pathOf(fd, from, fn), pathOf(d, names, n)),
    mknod: (d, names, n, mode, major, minor) => attempt(() => makeNode(pathOf(d, names, n), mode, major, minor)),
    unlink: (d, names, n, directory) =>
      done(() => (directory ? fs.rmdirSync(pathOf(d, names, n)) : fs.unlinkSync(pathOf(d, names, n)))),
    rename: (fd, from, fn, d, to, n, flags) => {
      if (flags === RENAME.EXCHANGE) return EINVAL;
      return attempt(() => renamePath(pathOf(fd, from, fn), pathOf(d, to, n), flags === RENAME.NOREPLACE));
    },
    chmod: (d, names, n, mode) => done(() => fs.chmodSync(pathOf(d, names, n), mode)),
    lchown: (d, names, n, uid, gid) => done(() => fs.lchownSync(pathOf(d, names, n), uid, gid)),
  };
}

function timeCalls(): Pick<Syscalls, "exactTimes" | "utimens"> {
  const exact = bindExactTimes();
  if (exact !== null) return { exactTimes: true, utimens: exact };
  const utimens: Syscalls["utimens"] = (d, names, n, seconds, nanoseconds) =>
    done(() => {
      const time = settableTime(seconds, nanoseconds);
      if (names.bytes[n] === 0) fs.futimesSync(d, time, time);
      else fs.lutimesSync(pathOf(d, names, n), time, time);
    });
  return { exactTimes: false, utimens };
}

/** Linux's clones as Node makes them: it takes paths, and on macOS it makes none (libuv took that back in 1.45). */
function cloneByNode(from: number, dirfd: number, names: Arena, name: number): number {
  const { COPYFILE_EXCL, COPYFILE_FICLONE_FORCE } = fs.constants;
  const to = pathOf(dirfd, names, name);
  return done(() => fs.copyFileSync(`/proc/self/fd/${from}`, to, COPYFILE_EXCL | COPYFILE_FICLONE_FORCE));
}

function attributeCalls(): AttributeCalls {
  const none = (): number => 0;
  const unsupported = (): number => EOPNOTSUPP;
  return {
    flistxattr: none,
    fgetxattr: unsupported,
    fsetxattr: unsupported,
    fremovexattr: unsupported,
    llistxattr: none,
    lgetxattr: unsupported,
    lsetxattr: unsupported,
  };
}

/** The call's value, or minus the errno that it threw. */
function attempt(call: () => number): number {
  try {
    return call();
  } catch (error) {
    return -errnoOf(error);
  }
}

function done(call: () => void): number {
  return attempt(() => {
    call();
    return 0;
  });
}

function errnoOf(error: unknown): number {
  const { errno, code } = error as NodeJS.ErrnoException;
  if (code !== undefined && CODES[code] !== undefined) return CODES[code];
  // Arguments that node:fs itself refuses have no number.
  return typeof errno === "number" && errno !== 0 ? Math.abs(errno) : -EINVAL;
}

class BadDescriptor extends Error {
  readonly errno = -EBADF;
}

function nameAt(arena: Arena, at: number): Buffer {
  return Buffer.from(arena.bytes.slice(at, arena.bytes.indexOf(0, at)));
}

function pathOfDescriptor(fd: number): Buffer {
  if (LINUX) return Buffer.from(`/proc/self/fd/${fd}`);
  const path = held.get(fd);
  if (path === undefined) throw new BadDescriptor(`the path of descriptor ${fd} is not known`);
  return path;
}

function pathOf(dirfd: number, arena: Arena, at: number): Buffer {
  const name = nameAt(arena, at);
  if (dirfd === AT_FDCWD || name[0] === 47) return name;
  return Buffer.concat([pathOfDescriptor(dirfd), SLASH, name]);
}

const SLASH = Buffer.from("/");

function openHeld(path: Buffer, flags: number, mode: number): number {
  const fd = fs.openSync(path, flags, mode);
  if (!LINUX && flags & (fs.constants.O_DIRECTORY ?? 0)) held.set(fd, path);
  return fd;
}

function statName(dirfd: number, arena: Arena, at: number, out: StatBuffer): void {
  if (arena.bytes[at] === 0) return fillStat(out, fs.fstatSync(dirfd, { bigint: true }));
  const stat = fs.lstatSync(pathOf(dirfd, arena, at), { bigint: true });
  fillStat(out, stat);
  if (stat.isDirectory() && isMountRoot(dirfd, arena, at, stat)) out.words[STAT.ATTRIBUTES] = ATTRIBUTE_MOUNT_ROOT;
}

function isMountRoot(dirfd: number, arena: Arena, at: number, stat: fs.BigIntStats): boolean {
  const name = nameAt(arena, at);
  if (dirfd === AT_FDCWD || name.includes(47) || name.equals(DOT)) return false;
  const onAnother = (): boolean => fs.fstatSync(dirfd, { bigint: true }).dev !== stat.dev;
  if (!LINUX) return onAnother();
  let directory: Buffer;
  try {
    directory = fs.readlinkSync(pathOfDescriptor(dirfd), { encoding: "buffer" });
  } catch {
    // Its path is longer than the kernel tells.
    return onAnother();
  }
  // A mount of the same file system has the same device number, so the kernel's own list decides.
  const path = Buffer.concat([directory.equals(SLASH) ? directory.subarray(1) : directory, SLASH, name]);
  return mountPoints().has(path.toString("latin1"));
}

const DOT = Buffer.from(".");
const MOUNTS_VALID_MS = 1000;
let mounts: { points: ReadonlySet<string>; readAt: number } | null = null;

function mountPoints(): ReadonlySet<string> {
  const now = performance.now();
  if (mounts === null || now - mounts.readAt > MOUNTS_VALID_MS) {
    mounts = { points: new Set(readMounts().map((mount) => mount.mountPoint.toString("latin1"))), readAt: now };
  }
  return mounts.points;
}

function fillStat(out: StatBuffer, stat: fs.BigIntStats): void {
  const { words } = out;
  words.fill(0);
  const wide = (word: number, value: bigint): void => {
    words[word] = Number(BigInt.asUintN(32, value));
    words[word + 1] = Number(BigInt.asUintN(32, value >> 32n));
  };
  const time = (word: number, nanoseconds: bigint): void => {
    const rest = ((nanoseconds % BILLION) + BILLION) % BILLION;
    wide(word, (nanoseconds - rest) / BILLION);
    words[word + 2] = Number(rest);
  };
  words[STAT.NLINK] = Number(stat.nlink);
  words[STAT.UID] = Number(stat.uid);
  words[STAT.GID] = Number(stat.gid);
  words[STAT.MODE] = Number(stat.mode);
  evenLinkMode(words);
  wide(STAT.INO, stat.ino);
  wide(STAT.SIZE, stat.size);
  wide(STAT.BLOCKS, stat.blocks);
  time(STAT.CTIME, stat.ctimeNs);
  time(STAT.MTIME, stat.mtimeNs);
  [words[STAT.RDEV_MAJOR], words[STAT.RDEV_MINOR]] = deviceParts(stat.rdev);
  [words[STAT.DEV_MAJOR], words[STAT.DEV_MINOR]] = deviceParts(stat.dev);
}

function deviceParts(device: bigint): [number, number] {
  if (process.platform !== "linux") return [Number((device >> 24n) & 0xffn), Number(device & 0xffffffn)];
  return [
    Number(((device >> 8n) & 0xfffn) | ((device >> 32n) & 0xfffff000n)),
    Number((device & 0xffn) | ((device >> 12n) & 0xffffff00n)),
  ];
}

/** A time for node:fs, which takes seconds as a double and a negative number for the present. */
function settableTime(seconds: number, nanoseconds: number): number | Date {
  if (seconds < 0) return new Date(seconds * 1000 + Math.floor(nanoseconds / 1_000_000));
  return seconds + nanoseconds / 1_000_000_000;
}

/** One more name of an entry, 0 or minus errno. A symbolic link gets none but on Linux: link(2) of macOS and BSD names what it leads to. */
function linkItself(from: Buffer, to: Buffer): number {
  return attempt(() => {
    if (process.platform !== "linux" && fs.lstatSync(from).isSymbolicLink()) return EOPNOTSUPP;
    fs.linkSync(from, to);
    return 0;
  });
}

/**
 * Without `noReplace` a plain rename. With it nothing is ever replaced: a directory takes the place of an empty one
 * made just before, anything else gets its new name as a hard link and then loses the old one. `EINVAL`, and nothing is
 * done, for what gets no hard link (a file system without, symbolic links but on Linux).
 */
function renamePath(from: Buffer, to: Buffer, noReplace: boolean): number {
  if (!noReplace) fs.renameSync(from, to);
  else if (fs.lstatSync(from).isDirectory()) renameDirectory(from, to);
  else {
    const linked = linkItself(from, to);
    if (linked < 0) return linked === EEXIST ? EEXIST : EINVAL;
    fs.unlinkSync(from);
  }
  return 0;
}

function renameDirectory(from: Buffer, to: Buffer): void {
  fs.mkdirSync(to, 0o700);
  try {
    fs.renameSync(from, to);
  } catch (error) {
    fs.rmdirSync(to);
    throw error;
  }
}

/** Makes a pipe or device under a name that a command line can carry, then gives it its own. */
function makeNode(path: Buffer, mode: number, major: number, minor: number): number {
  const type = mode >>> 12;
  if (type === TYPE.FILE) {
    fs.closeSync(fs.openSync(path, "wx", mode & 0o7777));
    return 0;
  }
  if (type !== TYPE.PIPE && type !== TYPE.CHARDEV && type !== TYPE.BLOCKDEV) return EPERM;
  const slash = path.lastIndexOf(47);
  const own = `.cairn-node-${process.pid}-${performance.now().toString(36)}`;
  const temporary = Buffer.concat([path.subarray(0, slash + 1), Buffer.from(own)]);
  // The command has descriptors of its own; this process's are seen by its number.
  const shown = temporary.toString("utf8").replace(/^\/proc\/self\//u, `/proc/${process.pid}/`);
  const what = type === TYPE.CHARDEV ? "c" : "b";
  // The mode afterwards: macOS's mknod takes none.
  const made =
    type === TYPE.PIPE ? spawnSync("mkfifo", [shown]) : spawnSync("mknod", [shown, what, String(major), String(minor)]);
  if (made.status !== 0) return EPERM;
  const result = attempt(() => {
    fs.chmodSync(temporary, mode & 0o7777);
    const placed = renamePath(temporary, path, true);
    if (placed !== EINVAL) return placed;
    // Somebody quicker may lose an entry: without hard links nothing but a look keeps it.
    if (fs.lstatSync(path, { throwIfNoEntry: false }) !== undefined) return EEXIST;
    return renamePath(temporary, path, false);
  });
  if (result < 0) fs.unlinkSync(temporary);
  return result;
}
