import { type Arena, arenaOver, bindNative, bindNativeLater, type NativeFunction, settleResult } from "../../native.ts";
import type { Syscalls } from "./syscall-abi.ts";

/**
 * Calls of macOS that Node does not make, by Apple's headers and manual pages (clonefile(2), chflags(2)): all of them take
 * a fixed number of arguments, since on arm64 others are passed in another way. Nothing here has ever run on macOS.
 */

/** CLONE_NOFOLLOW, which is also about a link at the new name, and CLONE_NOOWNERCOPY: it is this user's, root's too. */
const CLONE_FLAGS = 0x1 | 0x2;

/**
 * fclonefileat(2), since macOS 10.12: a new name that shares the open file's content, with its times, mode without
 * setuid and setgid, extended attributes and flags. `EEXIST`, `ENOTSUP` where the volume clones nothing (HFS+), `EXDEV`.
 */
export function bindClonefile(): Syscalls["cloneAs"] {
  const fclonefileat = bindNative("int fclonefileat(int from, int directory, uint64_t name, uint flags)");
  if (fclonefileat === null) return null;
  return (from: number, directory: number, names: Arena, name: number) =>
    settleResult(fclonefileat(from, directory, names.address + name, CLONE_FLAGS));
}

const fchflags = bindNativeLater("int fchflags(int fd, uint flags)");

/** Takes all flags off an open file, "locked" among them, with which it could neither be changed nor removed. */
export function clearFlags(fd: number): void {
  fchflags()?.(fd, 0);
}

type Waiting = NativeFunction & {
  async: (path: number, flags: number, ended: (error: unknown, result: number) => void) => void;
};

const syncVolume = bindNativeLater("int sync_volume_np(uint64_t path, int flags)");
/** To the platter and not only to the drive, and waiting for it: SYNC_VOLUME_FULLSYNC and SYNC_VOLUME_WAIT. */
const WHOLLY = 0x1 | 0x2;

/**
 * Has all of a folder's volume written to its disk while this thread goes on, by sync_volume_np of unistd.h (macOS 10.8),
 * which returns 0 or an errno. False where that was not done: on another system, and on volumes that cannot (SMB).
 */
export async function syncWholeVolume(folder: string | Buffer): Promise<boolean> {
  const call = syncVolume() as Waiting | null;
  if (call === null) return false;
  const path = arenaOver(Buffer.concat([Buffer.from(folder as string), Buffer.alloc(1)]));
  const errno = await new Promise<number>((resolve, reject) => {
    call.async(path.address, WHOLLY, (error, result) => (error ? reject(error as Error) : resolve(result)));
  }).catch(() => -1);
  // The path is named here so that its bytes live as long as the call.
  return errno === 0 && path.bytes.length > 0;
}
