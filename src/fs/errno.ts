import os from "node:os";

/** What a failed system call returns: minus errno, whose values are not the same on every system. */

const { errno } = os.constants;

export const EACCES = -errno.EACCES;
export const EAGAIN = -errno.EAGAIN;
export const EBADF = -errno.EBADF;
export const EEXIST = -errno.EEXIST;
export const EINVAL = -errno.EINVAL;
export const ELOOP = -errno.ELOOP;
export const ENODATA = -errno.ENODATA;
export const ENOENT = -errno.ENOENT;
export const ENOSYS = -errno.ENOSYS;
export const ENOTDIR = -errno.ENOTDIR;
export const ENOTEMPTY = -errno.ENOTEMPTY;
export const ENXIO = -errno.ENXIO;
export const EOPNOTSUPP = -errno.EOPNOTSUPP;
export const EPERM = -errno.EPERM;
export const EXDEV = -errno.EXDEV;
