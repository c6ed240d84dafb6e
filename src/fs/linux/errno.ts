import os from "node:os";

/** Results of failed system calls: minus errno, whose values are not the same on every system. */

const { errno } = os.constants;

export const EACCES = -errno.EACCES;
export const EAGAIN = -errno.EAGAIN;
export const EBADF = -errno.EBADF;
export const EBUSY = -errno.EBUSY;
export const EEXIST = -errno.EEXIST;
export const EFBIG = -errno.EFBIG;
export const EINVAL = -errno.EINVAL;
export const ELOOP = -errno.ELOOP;
export const ENAMETOOLONG = -errno.ENAMETOOLONG;
export const ENODATA = -errno.ENODATA;
export const ENOENT = -errno.ENOENT;
export const ENOSYS = -errno.ENOSYS;
export const ENOTDIR = -errno.ENOTDIR;
export const ENOTEMPTY = -errno.ENOTEMPTY;
export const ENXIO = -errno.ENXIO;
export const EOPNOTSUPP = -errno.EOPNOTSUPP;
export const EPERM = -errno.EPERM;
export const EXDEV = -errno.EXDEV;

/** Errors of calls for attributes where there is none, or none for this user. */
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

/**
 * Tells whether an error's name is what file systems say of names, kinds, links and sizes that they cannot hold, and of
 * a name that is another's to them.
 */
export function isNotHeld(errnoName: unknown): boolean {
  return NOT_HELD.has(errnoName);
}
