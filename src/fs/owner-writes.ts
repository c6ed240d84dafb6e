import fs from "node:fs";
import { newArena } from "../native.ts";
import { newStatBuffer, signedWide, STAT, syscallError, type Syscalls } from "./syscalls.ts";

const OWNER_ENTERS_AND_WRITES = 0o300;

/**
 * Lets the owner of an open directory change what is in it, where that is this user and its mode keeps it from them, as
 * in read-only trees that tools make; true when it did. Whoever calls sets the mode back.
 */
export function letOwnerWrite(fd: number): boolean {
  const { uid, mode } = fs.fstatSync(fd);
  if (uid !== process.geteuid?.() || (mode & OWNER_ENTERS_AND_WRITES) === OWNER_ENTERS_AND_WRITES) return false;
  fs.fchmodSync(fd, (mode & 0o7777) | OWNER_ENTERS_AND_WRITES);
  return true;
}

/** Sets an open directory's mode back after `letOwnerWrite`, in this process or one that was killed. */
export function undoOwnerWrites(fd: number, mode: number): void {
  const had = mode & 0o7777;
  const now = fs.fstatSync(fd).mode & 0o7777;
  if (now !== had && now === (had | OWNER_ENTERS_AND_WRITES)) fs.fchmodSync(fd, had);
}

/**
 * Works in an open directory that is complete already, opened for its owner, and leaves its mode and times as they were,
 * also when the work fails.
 */
export function changingInside(sys: Syscalls, fd: number, work: () => void): void {
  const stat = newStatBuffer();
  const known = sys.fstat(fd, stat);
  if (known < 0) throw syscallError(known, "cannot look at a directory that is to be changed");
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
