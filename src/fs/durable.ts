import { randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
  fchmodSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { dirname, join, resolve } from "node:path";
import { CairnError, toCairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { movedToFree } from "./linux/exchange-folders.ts";
import { machine, thisProcess } from "./lock-owner.ts";
import { isHeldInMetadata } from "./linux/reflink.ts";
import { openRegular, readRegular } from "./regular-file.ts";
import { printablePath, type RawPath } from "./paths/safe-path.ts";

/** Every temporary name begins with it: `.cairn-tmp-<pid>-<hex>-<boot and pid namespace>-<start of the process>`. */
export const TEMPORARY_PREFIX = ".cairn-tmp-";

/** A fresh name for something that is not finished. Whatever carries such a name may be removed after a crash. */
export function temporaryName(): string {
  return `${TEMPORARY_PREFIX}${process.pid}-${randomBytes(8).toString("hex")}-${machine()}-${thisProcess().startTime || "0"}`;
}

function errnoOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException | null)?.code;
}

/** Writes all of `bytes` at the descriptor's position, however the kernel portions it. */
export function writeAll(descriptor: number, bytes: Uint8Array): void {
  for (let offset = 0; offset < bytes.length;) {
    const written = writeSync(descriptor, bytes, offset, bytes.length - offset);
    if (written === 0) throw new CairnError("io", "the operating system wrote nothing");
    offset += written;
  }
}

/** Errors of file systems that know no hard links (FAT, many FUSE and network ones), or no more of one file. */
const NO_LINK: ReadonlySet<string> = new Set(["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EMLINK"]);
/** Errors of file systems that cannot sync a directory (some FUSE and network ones). */
const NO_DIRECTORY_SYNC: ReadonlySet<string> = new Set(["EINVAL", "ENOTSUP", "EOPNOTSUPP", "ENOSYS"]);

/** True of the error of a hard link that this file system makes for nobody. */
export function refusesLink(error: unknown): boolean {
  return NO_LINK.has(errnoOf(error) ?? "");
}

/** True of the error of a directory's sync where there is none: nothing more can be done. */
export function refusesDirectorySync(error: unknown): boolean {
  return NO_DIRECTORY_SYNC.has(errnoOf(error) ?? "");
}

/** Makes the entries of a directory durable, as far as its file system can. */
export function fsyncDirectory(path: RawPath): void {
  try {
    const descriptor = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
    try {
      fsyncSync(descriptor);
    } catch (error) {
      if (!refusesDirectorySync(error)) throw error;
    } finally {
      closeSync(descriptor);
    }
  } catch (error) {
    throw toCairnError(error, `sync the directory ${printablePath(path)}`);
  }
}

/** Makes the content of a regular file durable. Throws as `openRegular` does, and what the system says. */
export function fsyncFile(path: string): void {
  const descriptor = openRegular(path);
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

export interface DurableWriteOptions {
  /** Permission bits of the file whatever the umask; 0o600 unless told. */
  mode?: number;
  /** True: fail with `already_exists` when the name is taken, instead of replacing it. */
  exclusive?: boolean;
  /** False: leave the last directory sync to the caller, who writes several files there. */
  syncDirectory?: boolean;
  /** Directory of the same file system for the temporary file; beside the file unless told. */
  stagedIn?: string;
}

/** The bytes of a file, at once or in pieces. */
type Content = Uint8Array | Iterable<Uint8Array>;

/** Makes a file that must not be there, with these permissions whatever the umask, and has its content flushed before it is closed. */
export function writeNewFile(path: string, content: Content, mode: number, flush = fsyncSync): void {
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
  const descriptor = openSync(path, flags, mode);
  try {
    fchmodSync(descriptor, mode);
    for (const bytes of content instanceof Uint8Array ? [content] : content) writeAll(descriptor, bytes);
    flush(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

function giveName(temporary: string, path: string, exclusive: boolean): void {
  if (exclusive) giveFreeName(temporary, path);
  else renameSync(temporary, path);
}

/** Gives a finished file a name that must be free; the temporary one goes. Throws what the system says, `already_exists` or `EEXIST` when it is taken. */
export function giveFreeName(temporary: string, path: string): void {
  try {
    linkSync(temporary, path);
  } catch (error) {
    if (!refusesLink(error)) throw error;
    if (!movedToFree(Buffer.from(resolve(temporary)), Buffer.from(resolve(path)))) claimName(temporary, path);
    return;
  }
  failpoint("durable-linked");
  unlinkSync(temporary);
}

/** The name is claimed first; a kill in between leaves an empty file, which reads as damaged. */
function claimName(temporary: string, path: string): void {
  closeSync(openSync(path, "wx"));
  try {
    renameSync(temporary, path);
  } catch (error) {
    unlinkSync(path);
    throw error;
  }
}

/**
 * Replaces or creates a file so that after a crash it holds either all of the old or all of the new bytes,
 * and is durable when this returns: temporary file beside it, write, fsync, rename, fsync of the directory.
 */
export function durableWrite(path: string, content: Content, options: DurableWriteOptions = {}): void {
  const directory = dirname(path);
  const temporary = join(options.stagedIn ?? directory, temporaryName());
  try {
    writeNewFile(temporary, content, options.mode ?? 0o600);
    failpoint("durable-staged");
    giveName(temporary, path, options.exclusive === true);
  } catch (error) {
    forgetTemporary(temporary);
    throw toCairnError(error, `write ${path}`);
  }
  if (options.syncDirectory !== false) fsyncDirectory(directory);
}

/**
 * Replaces or creates a file on a file system whose changes to names become durable in the order they were made in, as
 * on btrfs: after a power cut the file has all of the new bytes if anything that was done later is there, and all of
 * the old ones otherwise. It is durable with whatever makes the file system commit next.
 */
export function orderedWrite(path: string, bytes: Uint8Array): void {
  const temporary = join(dirname(path), temporaryName());
  try {
    writeNewFile(temporary, bytes, 0o600, (descriptor) => {
      if (!isHeldInMetadata(descriptor)) fsyncSync(descriptor);
    });
    failpoint("ordered-staged");
    renameSync(temporary, path);
  } catch (error) {
    forgetTemporary(temporary);
    throw toCairnError(error, `write ${path}`);
  }
}

/** A failed write's temporary file; one that cannot be removed is left to whoever comes later. */
function forgetTemporary(temporary: string): void {
  try {
    rmSync(temporary, { force: true });
  } catch {
    // A file system that has gone away fails the write, too.
  }
}

/** A rename that is durable when this returns; both directories are synced. */
export function durableRename(from: string, to: string): void {
  try {
    renameSync(from, to);
  } catch (error) {
    throw toCairnError(error, `rename ${from} to ${to}`);
  }
  fsyncDirectory(dirname(to));
  if (dirname(from) !== dirname(to)) fsyncDirectory(dirname(from));
}

/** Removes a file durably; true when there was one. */
export function durableRemove(path: string): boolean {
  try {
    unlinkSync(path);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return false;
    throw toCairnError(error, `remove ${path}`);
  }
  fsyncDirectory(dirname(path));
  return true;
}

/**
 * Makes a directory and its missing parents, each synced into its parent. True when the last one was made here. `mode`:
 * permission bits, less the umask; 0o700 unless told.
 * Throws `already_exists` when the name is taken by something else than a directory.
 */
export function durableMkdir(path: string, { mode = 0o700 }: { mode?: number } = {}): boolean {
  return makeDirectory(path, mode, true);
}

/** Some file systems say that something is missing where they let nobody make a folder (proc), so parents are made once. */
function makeDirectory(path: string, mode: number, mayLackParents: boolean): boolean {
  try {
    mkdirSync(path, { mode });
  } catch (error) {
    const name = errnoOf(error);
    // A link to one too: who ran out of room has moved it to another disk.
    if (name === "EEXIST" && statSync(path, { throwIfNoEntry: false })?.isDirectory() === true) return false;
    if (name !== "ENOENT" || dirname(path) === path || !mayLackParents)
      throw toCairnError(error, `make the directory ${path}`);
    durableMkdir(dirname(path), { mode });
    return makeDirectory(path, mode, false);
  }
  fsyncDirectory(dirname(path));
  return true;
}

/** A small file's bytes, or null where there is none. Throws `damaged` beyond `limit` bytes or for what is no regular file. */
export function readSmallFile(path: string, limit: number, named = false): Buffer | null {
  try {
    return readRegular(path, { limit, named });
  } catch (error) {
    const name = errnoOf(error);
    if (name === "ENOENT" || name === "ENOTDIR") return null;
    throw toCairnError(error, `read ${path}`);
  }
}
