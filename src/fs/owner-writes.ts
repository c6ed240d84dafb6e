import fs from "node:fs";

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
