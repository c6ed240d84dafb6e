import { type Arena, bindNative, bindNativeLater, settleResult } from "../native.ts";
import type { Syscalls } from "./syscall-abi.ts";

/**
 * Calls of macOS that Node does not make, by Apple's headers and manual pages (clonefile(2), chflags(2)): all of them take
 * a fixed number of arguments, since on arm64 others are passed in another way. Nothing here has ever run on macOS.
 */

/**
 * fclonefileat(2), since macOS 10.12: a new name that shares the open file's content, with its times, mode without
 * setuid and setgid, extended attributes and flags. `EEXIST`, `ENOTSUP` where the volume clones nothing (HFS+), `EXDEV`.
 */
export function bindClonefile(): Syscalls["cloneAs"] {
  const fclonefileat = bindNative("int fclonefileat(int from, int directory, uint64_t name, uint flags)");
  if (fclonefileat === null) return null;
  return (from: number, directory: number, names: Arena, name: number) =>
    settleResult(fclonefileat(from, directory, names.address + name, 0));
}

const fchflags = bindNativeLater("int fchflags(int fd, uint flags)");

/** Takes all flags off an open file, "locked" among them, with which it could neither be changed nor removed. */
export function clearFlags(fd: number): void {
  fchflags()?.(fd, 0);
}
