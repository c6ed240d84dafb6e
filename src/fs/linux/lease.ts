import os from "node:os";
import { bindNativeLater, lastErrno } from "../../native.ts";

/**
 * Write leases. The kernel grants a lease only while no other descriptor of the file is open, in any process or
 * container.
 */

const F_SETSIG = 10;
const F_SETLEASE = 1024;
const F_GETLEASE = 1025;
const F_WRLCK = 1;
const F_UNLCK = 2;
/**
 * The signal that the lease's owner gets when another process opens the file. This signal does nothing; the usual SIGIO
 * would end the process.
 */
const HARMLESS = os.constants.signals.SIGURG;
const OPEN_ELSEWHERE: ReadonlySet<number> = new Set([os.constants.errno.EAGAIN, os.constants.errno.EBUSY]);

const bound = bindNativeLater("int fcntl(int fd, int command, uint64_t argument)");

/**
 * Takes a write lease on an open regular file. Another process that opens the file then waits for the release.
 * `unknown`: the file belongs to another user, or the file system has no leases.
 */
export function takeWriteLease(fd: number): "taken" | "open elsewhere" | "unknown" {
  const fcntl = bound();
  if (fcntl === null || fcntl(fd, F_SETSIG, HARMLESS) !== 0) return "unknown";
  if (fcntl(fd, F_SETLEASE, F_WRLCK) === 0) return "taken";
  return OPEN_ELSEWHERE.has(lastErrno()) ? "open elsewhere" : "unknown";
}

/** True until another process begins to open the leased file. */
export function isLeaseWhole(fd: number): boolean {
  return bound()?.(fd, F_GETLEASE, 0) === F_WRLCK;
}

export function releaseLease(fd: number): void {
  bound()?.(fd, F_SETLEASE, F_UNLCK);
}
