import { closeSync, constants, lstatSync, openSync, readFileSync, statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { dirname } from "node:path";
import { CairnError } from "../../errors.ts";
import { bindNative, bindNativeLater, lastErrno, newArena } from "../../native.ts";
import type { Arena, NativeFunction } from "../../native.ts";
import { filesystemKind, type Mount, mountOf, readMounts, unescapeOctal } from "./mounts.ts";

/** Open-file-description locks: the open file holds the lock, which ends with the process and excludes other opens of a process. */

const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const LOCK_TYPES = { shared: 0, exclusive: 1, none: 2 } as const;
const EACCES = 13;
const EAGAIN = 11;
const STRUCT_FLOCK_BYTES = 32;
const [LOCK_SH, LOCK_NB] = [1, 4];
const UPPER = "upperdir=";

const flockCall = bindNativeLater("int flock(int fd, int operation)");
let fcntl: NativeFunction | null | undefined;
let flock: Arena | undefined;

function bind(): NativeFunction | null {
  if (fcntl === undefined) {
    // The struct flock below is that of 64-bit Linux; other systems use owner files.
    const known = process.arch === "x64" || process.arch === "arm64";
    fcntl = known ? bindNative("int fcntl(int fd, int command, uint64_t lock)") : null;
    if (fcntl !== null) flock = newArena(STRUCT_FLOCK_BYTES);
  }
  return fcntl;
}

/** True if this process can take kernel locks. */
export function kernelLocksAvailable(): boolean {
  return bind() !== null;
}

/** The locked bytes of a file; length 0: to the end. */
export interface LockRange {
  start: number;
  length: number;
}
const WHOLE: LockRange = { start: 0, length: 0 };

/** Packs { short type; short whence; off_t start; off_t length; pid_t pid }. */
function packFlock(type: number, { start, length }: LockRange = WHOLE): Arena {
  const arena = flock!;
  arena.bytes.fill(0);
  arena.bytes[0] = type;
  const view = new DataView(arena.bytes.buffer, arena.bytes.byteOffset);
  view.setBigInt64(8, BigInt(start), true);
  view.setBigInt64(16, BigInt(length), true);
  return arena;
}

/**
 * Takes the lock on an open file without waiting; false if another open file holds it. Throws `unsupported` if the file
 * system has no such locks.
 */
export function tryKernelLock(descriptor: number, shared: boolean, range?: LockRange): boolean {
  const call = bind();
  if (call === null) throw new CairnError("unsupported", "this system has no call for kernel locks");
  const arena = packFlock(shared ? LOCK_TYPES.shared : LOCK_TYPES.exclusive, range);
  if (call(descriptor, F_OFD_SETLK, arena.address) === 0) return true;
  const errno = lastErrno();
  if (errno === EAGAIN || errno === EACCES) return false;
  throw new CairnError("unsupported", `the file system refused a kernel lock (errno ${errno})`);
}

/** Releases the lock. A close releases it too, unless a child process inherited the descriptor. */
export function releaseKernelLock(descriptor: number, range?: LockRange): void {
  const call = bind();
  if (call !== null) call(descriptor, F_OFD_SETLK, packFlock(LOCK_TYPES.none, range).address);
}

/**
 * Visible processes with a POSIX lock whose first byte is wanted. The kernel holds all changes of locks up before it lists
 * them, which takes 10 to 20 ms: other work goes on meanwhile.
 */
export async function processesWithLocks(isWanted: (start: number) => boolean): Promise<number[]> {
  let text: string;
  try {
    text = await readFile("/proc/locks", "latin1");
  } catch {
    return [];
  }
  const found = text.matchAll(/ POSIX .* (\d+) \S+:\d+ (\d+) \S+$/gm);
  return [...new Set([...found].flatMap(([, pid, start]) => (isWanted(Number(start)) ? [Number(pid)] : [])))];
}

export type HeldMode = "exclusive" | "shared" | "none";

/** Returns the mode in which other open files hold the lock of this file. */
export function kernelLockState(descriptor: number): HeldMode {
  const call = bind();
  if (call === null) return "none";
  const arena = packFlock(LOCK_TYPES.exclusive);
  if (call(descriptor, F_OFD_GETLK, arena.address) !== 0) return "none";
  const type = arena.bytes[0];
  return type === LOCK_TYPES.none ? "none" : type === LOCK_TYPES.exclusive ? "exclusive" : "shared";
}

/** First byte of a lock that another open file has on some of these bytes; null if none has. */
export function lockedFrom(descriptor: number, range: LockRange): number | null {
  const call = bind();
  if (call === null) return null;
  const arena = packFlock(LOCK_TYPES.exclusive, range);
  if (call(descriptor, F_OFD_GETLK, arena.address) !== 0 || arena.bytes[0] === LOCK_TYPES.none) return null;
  return Number(new DataView(arena.bytes.buffer, arena.bytes.byteOffset).getBigInt64(8, true));
}

/** True if another open file has a write lock on one of these bytes. */
export function isWriteLocked(descriptor: number, range: LockRange): boolean {
  const call = bind();
  if (call === null) return false;
  const arena = packFlock(LOCK_TYPES.shared, range);
  return call(descriptor, F_OFD_GETLK, arena.address) === 0 && arena.bytes[0] === LOCK_TYPES.exclusive;
}

/** A byte that no program locks. */
const PROBED: LockRange = { start: 2 ** 62, length: 1 };
/** Mount options with which a network file system keeps locks in this kernel only. */
const LOCAL_LOCKS: Readonly<Record<string, RegExp>> = {
  nfs: /^(?:nolock|local_lock=(?:all|posix))$/,
  cifs: /^nobrl$/,
  smb2: /^nobrl$/,
  lustre: /^localflock$/,
  gfs2: /^localflocks$/,
  ocfs2: /^localflocks$/,
  ceph: /^$/,
  gpfs: /^$/,
};

const ELSEWHERE = "programs elsewhere may use it unseen";

/**
 * Tells why the locks of an open file do not show everybody who uses it, in a sentence for people; null if they do. A
 * FUSE is asked with a lock: the kernel lists the lock at the descriptor only if the kernel alone keeps it.
 */
export function whyLocksAreLocal(descriptor: number, path: Uint8Array): string | null {
  const { name, place, overlay } = filesystemKind(Buffer.from(path));
  if ((place === "local" && !overlay) || place === "memory") return null;
  const id = Number(/^mnt_id:\s*(\d+)$/m.exec(factsOf(descriptor))?.[1]);
  const mount = readMounts().find((each) => each.id === id) ?? null;
  const shown = mount?.type ?? name;
  if (overlay)
    return isUpperReachable(mount)
      ? `${ELSEWHERE}, since the overlay's upper directory can be reached by itself`
      : null;
  const options = mount?.fileSystemOptions.split(",");
  const isServed =
    place === "fuse"
      ? isServedLock(descriptor)
      : options?.some((each) => LOCAL_LOCKS[name]?.test(each) !== false) === false;
  return isServed ? null : `${ELSEWHERE}, since locks on this file system (${shown}) are local to the mount`;
}

function isServedLock(descriptor: number): boolean {
  try {
    if (!tryKernelLock(descriptor, true, PROBED)) return false;
  } catch {
    return false;
  }
  const facts = factsOf(descriptor);
  releaseKernelLock(descriptor, PROBED);
  return facts !== "" && !/^lock:/m.test(facts);
}

/** Reads the kernel's facts of an open file; empty without /proc. */
function factsOf(descriptor: number): string {
  try {
    return readFileSync(`/proc/self/fdinfo/${descriptor}`, "latin1");
  } catch {
    return "";
  }
}

/** True also if that is not known. The path has overlay's escapes within the kernel's. */
function isUpperReachable(mount: Mount | null): boolean {
  if (mount === null) return true;
  const option = mount.fileSystemOptions.split(",").find((each) => each.startsWith(UPPER));
  if (option === undefined) return false;
  const upper = unescapeOctal(option.slice(UPPER.length)).toString("latin1").replaceAll(/\\(.)/g, "$1");
  return !upper.startsWith("/") || statSync(Buffer.from(upper, "latin1"), { throwIfNoEntry: false }) !== undefined;
}

function deviceInLockTable(path: string): string | null {
  const mount = mountOf(dirname(path));
  if (mount === null) return null;
  const [major, minor] = mount.device.split(":").map((part) => Number(part).toString(16).padStart(2, "0"));
  return `${major}:${minor}`;
}

/**
 * True if an open file has an exclusive lock of any kind on a file; null if that cannot be asked. Tries the lock: within
 * a pid namespace the kernel's table hides a lock whose taker has ended, for example a program that went into the background.
 */
export function isLocked(path: string): boolean | null {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ENOENT" ? false : null;
  }
  try {
    // The close takes the lock back.
    return kernelLockState(fd) === "exclusive" || flockCall()?.(fd, LOCK_SH | LOCK_NB) === -1;
  } finally {
    closeSync(fd);
  }
}

/**
 * Returns the mode from the kernel's lock table, which includes processes of other pid namespaces, so the record in the
 * file is not needed. Null if the table cannot be read.
 */
export function kernelLockFromTable(path: string): HeldMode | null {
  const inode = lstatSync(path, { throwIfNoEntry: false })?.ino;
  if (inode === undefined) return "none";
  let text: string;
  try {
    text = readFileSync("/proc/locks", "latin1");
  } catch {
    return null;
  }
  const device = deviceInLockTable(path);
  const place = device === null ? `:${inode} ` : ` ${device}:${inode} `;
  const held = text
    .split("\n")
    .filter((line) => line.includes(" OFDLCK ") && line.includes(place) && !line.includes("->"));
  if (held.length === 0) return "none";
  return held.some((line) => line.includes(" WRITE ")) ? "exclusive" : "shared";
}
