import fs from "node:fs";
import { CairnError, toCairnError } from "../errors.ts";
import { type Arena, bindNativeLater, hasProc, newArena } from "../native.ts";
import { printablePath } from "./paths/safe-path.ts";
import {
  AT_FDCWD,
  newStatBuffer,
  OPEN,
  openDirectory,
  putName,
  signedWide,
  STAT,
  syscallError,
  type Syscalls,
  syscalls,
} from "./linux/syscalls.ts";

const OWNER_ENTERS_AND_WRITES = 0o300;

/** Sets the permissions of an open file or directory. An error names its path. */
export function setMode(fd: number, mode: number): void {
  try {
    fs.fchmodSync(fd, mode);
  } catch (error) {
    const { code, message, hint } = toCairnError(error);
    const place = hasProc() ? printablePath(fs.readlinkSync(`/proc/self/fd/${fd}`, "buffer")) : "an open entry";
    throw new CairnError(code, `set the permissions of ${place}: ${message}`, {
      hint: code === "permission" ? NO_MODES_HINT : hint,
      cause: error,
    });
  }
}

const NO_MODES_HINT =
  "use a folder whose file system keeps permissions, or mount it so that this user may set them: some FUSE and network mounts refuse chmod";

/**
 * Lets this user change entries of an own directory whose mode forbids that, as in read-only trees of tools. True if
 * the mode was changed; the caller restores it.
 */
export function letOwnerWrite(fd: number): boolean {
  const { uid, mode } = fs.fstatSync(fd);
  if (uid !== process.geteuid?.() || (mode & OWNER_ENTERS_AND_WRITES) === OWNER_ENTERS_AND_WRITES) return false;
  setMode(fd, (mode & 0o7777) | OWNER_ENTERS_AND_WRITES);
  return true;
}

const OWNER = 0o700;
const DIRECTORY = fs.constants.O_RDONLY | fs.constants.O_DIRECTORY | fs.constants.O_NOFOLLOW;

/** Makes a directory private. Throws for a link. */
export function makePrivate(folder: string | Buffer): void {
  fs.closeSync(openPrivate(folder));
}

/** Makes a folder private and opens it, even if its mode kept its owner from opening it. */
function openPrivate(folder: string | Buffer): number {
  const fd = openClosed(folder);
  try {
    setMode(fd, OWNER);
    return fd;
  } catch (error) {
    fs.closeSync(fd);
    throw error;
  }
}

function openClosed(folder: string | Buffer): number {
  try {
    return openDirectory(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EACCES") throw error;
    const path = Buffer.from(folder as string);
    const name = newArena(path.length + 1);
    putName(name, 0, path);
    letOwnerIn(syscalls(), { fd: AT_FDCWD, name, at: 0 });
    return openDirectory(folder);
  }
}

export interface NameIn {
  fd: number;
  name: Arena;
  at: number;
}

/**
 * Gives the owner of a directory all rights on it, if its mode keeps the owner from opening it. Changes exactly the
 * directory that was found, not a replacement or a link's target. `isMeant` may refuse it. True if the mode was
 * changed.
 */
export function letOwnerIn(
  sys: Syscalls,
  { fd, name, at }: NameIn,
  isMeant: (found: number) => boolean = () => true,
): boolean {
  const found = sys.open(fd, name, at, DIRECTORY | OPEN.PATH, 0);
  if (found < 0) return false;
  try {
    return isMeant(found) && isGiven(found);
  } catch {
    return false;
  } finally {
    sys.close(found);
  }
}

const FCHMODAT2 = 452;
const AT_EMPTY_PATH = 0x1000;
const fchmodat2 = bindNativeLater("int64_t syscall(int64_t n, int64_t d, uint64_t p, uint64_t m, uint64_t f)");

/** Changes the mode by a descriptor that only names the directory: through /proc, or without /proc by a call of Linux 6.6. */
function isGiven(found: number): boolean {
  if (hasProc()) {
    fs.chmodSync(`/proc/self/fd/${found}`, OWNER);
    return true;
  }
  const empty = newArena(1);
  const result = fchmodat2()?.(FCHMODAT2, found, empty.address, OWNER, AT_EMPTY_PATH);
  // The arena is used here so that its bytes live as long as the call.
  return result === 0 && empty.bytes.length > 0;
}

/** Restores an open directory's mode after `letOwnerWrite`, in this process or a killed one. */
export function undoOwnerWrites(fd: number, mode: number): void {
  const had = mode & 0o7777;
  const now = fs.fstatSync(fd).mode & 0o7777;
  if (now !== had && now === (had | OWNER_ENTERS_AND_WRITES)) fs.fchmodSync(fd, had);
}

/**
 * Calls `work` on an open, complete directory that its owner may change meanwhile, then restores its mode and times.
 */
export function changingInside(sys: Syscalls, fd: number, work: () => void): void {
  const stat = newStatBuffer();
  const known = sys.fstat(fd, stat);
  if (known < 0) throw syscallError(known, "cannot look at a directory before changing it");
  const mode = stat.words[STAT.MODE]! & 0o7777;
  const isClosed = (mode & OWNER_ENTERS_AND_WRITES) !== OWNER_ENTERS_AND_WRITES;
  if (isClosed) sys.fchmod(fd, mode | OWNER_ENTERS_AND_WRITES);
  try {
    work();
  } finally {
    if (isClosed) sys.fchmod(fd, mode);
    sys.utimens(fd, newArena(1), 0, signedWide(stat.words, STAT.MTIME), stat.words[STAT.MTIME_NS]!);
  }
}
