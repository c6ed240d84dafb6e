import os from "node:os";
import { CairnError, codeOfErrno, hintOfErrno, RAN_OUT, unnamedErrno } from "../../errors.ts";

/** Results of failed system calls: minus errno. The values differ between systems. */

const { errno } = os.constants;

export const EACCES = -errno.EACCES;
export const EAGAIN = -errno.EAGAIN;
export const EBADF = -errno.EBADF;
export const EBUSY = -errno.EBUSY;
export const EDQUOT = -errno.EDQUOT;
export const EEXIST = -errno.EEXIST;
export const EINVAL = -errno.EINVAL;
export const EIO = -errno.EIO;
export const EISDIR = -errno.EISDIR;
export const ELOOP = -errno.ELOOP;
export const ENAMETOOLONG = -errno.ENAMETOOLONG;
export const ENODATA = -errno.ENODATA;
export const ENOENT = -errno.ENOENT;
export const ENOSPC = -errno.ENOSPC;
export const ENOSYS = -errno.ENOSYS;
export const ENOTDIR = -errno.ENOTDIR;
export const ENOTEMPTY = -errno.ENOTEMPTY;
export const ENXIO = -errno.ENXIO;
export const EOPNOTSUPP = -errno.EOPNOTSUPP;
export const EOVERFLOW = -errno.EOVERFLOW;
export const EPERM = -errno.EPERM;
export const EROFS = -errno.EROFS;
export const ETIMEDOUT = -errno.ETIMEDOUT;
export const EXDEV = -errno.EXDEV;

/** Errors of attribute calls that mean: no attribute, or none for this user. */
export const HAS_NO_ATTRIBUTE: ReadonlySet<number> = new Set([
  0,
  EACCES,
  ENODATA,
  ENOENT,
  ENOSYS,
  ENOTDIR,
  EOPNOTSUPP,
  EPERM,
]);

const NOT_HELD: ReadonlySet<unknown> = new Set([
  "EINVAL",
  "EILSEQ",
  "ENAMETOOLONG",
  "EEXIST",
  "EPERM",
  "ENOSYS",
  "EOPNOTSUPP",
  "ENOTSUP",
  "EMLINK",
  "EFBIG",
]);

/** True for an errno of a file system that cannot store a name, kind, link or size, or treats two names as the same. */
export function isNotHeld(errnoName: unknown): boolean {
  return NOT_HELD.has(errnoName);
}

const ERRNO_NAMES = new Map<number, string>();

/** The name of an errno value, for example 2 → `ENOENT`. */
export function errnoName(value: number): string {
  if (ERRNO_NAMES.size === 0) {
    for (const [name, each] of Object.entries(errno)) if (!ERRNO_NAMES.has(each)) ERRNO_NAMES.set(each, name);
  }
  return ERRNO_NAMES.get(value) ?? unnamedErrno(value) ?? `errno ${value}`;
}

/** Returns a CairnError for a negative result. */
export function syscallError(
  result: number,
  doing: string,
  hint: string | undefined = hintOfErrno(errnoName(-result)),
): CairnError {
  const name = errnoName(-result);
  return new CairnError(codeOfErrno(name), `${doing}: ${name}`, { hint, details: { errno: name } });
}

/**
 * Returns the name of the errno (a negative result) for an unreadable entry, so that the caller continues with the
 * others. Throws `io` if the process or the system is out of descriptors or memory, which is no fault of the entry.
 */
export function faultOfEntry(result: number): string {
  const name = errnoName(-result);
  throwIfRanOut(name);
  return name;
}

/** Throws `io` if a failed call, also one of Node, ran out of descriptors or memory. */
export function throwIfRanOut(failed: unknown): void {
  const name = typeof failed === "string" ? failed : (failed as { code?: unknown } | null)?.code;
  const hint = typeof name === "string" ? RAN_OUT.get(name) : undefined;
  if (hint === undefined) return;
  throw new CairnError("io", `no more files can be opened or read: ${String(name)}`, {
    hint,
    details: { errno: name },
  });
}
