import { randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
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
import { adviceOf, CairnError, errnoOf, type Hint, see, toCairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { fsyncAsync } from "./linux/flush.ts";
import { movedToFree } from "./linux/exchange-folders.ts";
import { machine, thisProcess } from "./lock-owner.ts";
import { isHeldInMetadata } from "./linux/reflink.ts";
import { setMode } from "./owner-writes.ts";
import { openRegular, readRegular } from "./regular-file.ts";
import { printablePath, type RawPath } from "./paths/safe-path.ts";

/** The prefix of every temporary name: `.cairn-tmp-<pid>-<hex>-<boot and pid namespace>-<start of the process>`. */
export const TEMPORARY_PREFIX = ".cairn-tmp-";

/** Returns a new name for an unfinished entry. An entry with such a name may be removed after a crash. */
export function temporaryName(): string {
  return `${TEMPORARY_PREFIX}${process.pid}-${randomBytes(8).toString("hex")}-${machine()}-${thisProcess().startTime || "0"}`;
}

/** Writes all of `bytes`, at `position` or else the descriptor's, even if the kernel takes fewer bytes per call. */
export function writeAll(descriptor: number, bytes: Uint8Array, position?: number): void {
  for (let offset = 0; offset < bytes.length;) {
    const at = position === undefined ? null : position + offset;
    const written = writeSync(descriptor, bytes, offset, bytes.length - offset, at);
    if (written === 0) throw new CairnError("io", "the operating system wrote nothing");
    offset += written;
  }
}

/** Errors of file systems without hard links (FAT, many FUSE and network ones), or without room for another link of the file. */
const NO_LINK: ReadonlySet<string> = new Set(["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EMLINK"]);
/** Errors of file systems that cannot sync a directory (some FUSE and network ones). */
const NO_DIRECTORY_SYNC: ReadonlySet<string> = new Set(["EINVAL", "ENOTSUP", "EOPNOTSUPP", "ENOSYS"]);

/** True for the error of a hard link that the file system refuses to every user. */
export function refusesLink(error: unknown): boolean {
  return NO_LINK.has(errnoOf(error) ?? "");
}

/** True for the error of a directory sync that the file system does not support. */
export function refusesDirectorySync(error: unknown): boolean {
  return NO_DIRECTORY_SYNC.has(errnoOf(error) ?? "");
}

/** Makes the entries of a directory durable, if its file system can. */
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

/** Makes the entries of several directories durable. At the same time, which takes a disk hardly longer than one. */
export async function fsyncDirectories(paths: Iterable<string>): Promise<void> {
  await Promise.all(
    Array.from(paths, async (path) => {
      try {
        const descriptor = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
        try {
          await fsyncAsync(descriptor);
        } finally {
          closeSync(descriptor);
        }
      } catch (error) {
        if (!refusesDirectorySync(error)) throw toCairnError(error, `sync the directory ${printablePath(path)}`);
      }
    }),
  );
}

/** Makes the content of a regular file durable. Throws the errors of `openRegular()` and system errors. */
export function fsyncFile(path: string): void {
  const descriptor = openRegular(path);
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

export interface DurableWriteOptions {
  /** Permission bits of the file, independent of the umask; default 0o600. */
  mode?: number;
  /** True: throws `already_exists` if the name is taken, instead of replacing the file. */
  exclusive?: boolean;
  /** False: the caller syncs the directory, after it has written several files there. */
  syncDirectory?: boolean;
  /** Directory of the same file system for the temporary file; default: the file's own directory. */
  stagedIn?: string;
}

/** The bytes of a file, at once or in pieces. */
type Content = Uint8Array | Iterable<Uint8Array>;

/** Makes a new file with these permissions, independent of the umask, and flushes its content before the close. */
export function writeNewFile(path: string, content: Content, mode: number, flush = fsyncSync): void {
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
  const descriptor = openSync(path, flags, mode);
  try {
    setMode(descriptor, mode);
    for (const bytes of content instanceof Uint8Array ? [content] : content) writeAll(descriptor, bytes);
    flush(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/**
 * Makes a new file from pieces. The umask limits `mode`. Returns the number of bytes. `flush` runs before the close;
 * without `flush` the caller flushes later.
 */
export async function writePieces(
  path: string | Buffer,
  pieces: AsyncIterable<Uint8Array>,
  mode: number,
  flush?: typeof fsyncSync,
): Promise<number> {
  const descriptor = openSync(path, "wx", mode);
  let bytes = 0;
  try {
    for await (const piece of pieces) {
      writeAll(descriptor, piece);
      bytes += piece.length;
    }
    flush?.(descriptor);
  } finally {
    closeSync(descriptor);
  }
  return bytes;
}

function giveName(temporary: string, path: string, exclusive: boolean): void {
  if (exclusive) giveFreeName(temporary, path);
  else renameSync(temporary, path);
}

/**
 * Renames a finished temporary file to a name that must be free. Throws `already_exists` or `EEXIST` if the name is
 * taken, and system errors.
 */
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

/** Claims the name with an empty file first. A kill in between leaves the empty file, which is read as damaged. */
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
 * Replaces or creates a file. After a crash the file has all the old or all the new bytes; the change is durable when
 * this returns. Steps: temporary file beside it, write, fsync, rename, fsync of the directory.
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
 * Replaces or creates a file on a file system that commits changes of names in order, such as btrfs. After a power cut
 * the file has the new bytes if any later change survived, else all the old bytes. The next commit of the file system
 * makes it durable.
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

/** Removes the temporary file of a failed write. A later cleanup removes a file that stays. */
function forgetTemporary(temporary: string): void {
  try {
    rmSync(temporary, { force: true });
  } catch {
    // If the file system is gone, the write fails, too.
  }
}

/** Renames durably; syncs both directories. */
export function durableRename(from: string, to: string): void {
  try {
    renameSync(from, to);
  } catch (error) {
    throw toCairnError(error, `rename ${from} to ${to}`);
  }
  fsyncDirectory(dirname(to));
  if (dirname(from) !== dirname(to)) fsyncDirectory(dirname(from));
}

/** Removes a file durably; true if it existed. */
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
 * Makes a directory and its missing parents, each synced into its parent. True if this call made the last directory.
 * `mode`: permission bits, less the umask; default 0o700. Throws `already_exists` if the name is taken by another kind
 * of entry.
 */
export function durableMkdir(path: string, { mode = 0o700 }: { mode?: number } = {}): boolean {
  return makeDirectory(path, mode, true);
}

/** Makes the parents only once: proc, for example, reports a missing parent when it allows no new folder. */
function makeDirectory(path: string, mode: number, mayLackParents: boolean): boolean {
  try {
    mkdirSync(path, { mode });
  } catch (error) {
    const name = errnoOf(error);
    // A link to a directory counts too: users move the directory to another disk.
    if (name === "EEXIST" && statSync(path, { throwIfNoEntry: false })?.isDirectory() === true) return false;
    if (name !== "ENOENT" || dirname(path) === path || !mayLackParents)
      throw toCairnError(error, `make the directory ${path}`);
    durableMkdir(dirname(path), { mode });
    return makeDirectory(path, mode, false);
  }
  fsyncDirectory(dirname(path));
  return true;
}

/** Returns a small file's bytes, or null if it does not exist. Throws `damaged` beyond `limit` bytes or for no regular file. */
export function readSmallFile(path: string, limit: number, named = false): Buffer | null {
  try {
    return readRegular(path, { limit, named });
  } catch (error) {
    const name = errnoOf(error);
    if (name === "ENOENT" || name === "ENOTDIR") return null;
    throw toCairnError(error, `read ${path}`);
  }
}

export interface ReadOptions {
  maxBytes?: number;
  /** Advice for a damaged file. */
  hint?: Hint;
}

/** Reads a file and decodes it; null if there is no file. Throws the errors of `decode`, with the file's path. */
export function readRecord<T>(path: string, decode: (bytes: Uint8Array) => T, options: ReadOptions = {}): T | null {
  const { maxBytes = 16 << 20, hint = see("doctor") } = options;
  const bytes = readSmallFile(path, maxBytes);
  if (bytes === null) return null;
  try {
    return decode(bytes);
  } catch (error) {
    const failed = toCairnError(error);
    throw new CairnError(failed.code, `${path}: ${failed.message}`, { hint: adviceOf(failed) ?? hint, cause: error });
  }
}
