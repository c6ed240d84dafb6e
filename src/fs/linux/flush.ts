import { execFile } from "node:child_process";
import fs from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { CairnError, codeOfErrno, toCairnError } from "../../errors.ts";
import { bindNativeLater, lastErrno, type NativeFunction, newArena } from "../../native.ts";
import { EBADF } from "./errno.ts";
import { printablePath } from "../paths/safe-path.ts";
import { errnoName } from "./syscalls.ts";

const DIRECTORY = fs.constants.O_RDONLY | fs.constants.O_DIRECTORY;

type Waiting = NativeFunction & { async?: (fd: number, ended: (error: unknown, result: number) => void) => void };

const syncfs = bindNativeLater("int syncfs(int fd)");
const fadvise = bindNativeLater("int posix_fadvise(int fd, int64_t offset, int64_t length, int advice)");
const statx = bindNativeLater("int statx(int fd, uint64_t path, int flags, unsigned int mask, uint64_t facts)");
const AT_EMPTY_PATH = 0x1000;
const FORCE_SYNC = 0x2000;
const BASIC_FACTS = 0x7ff;
const WILL_NEED = 3;
const DONT_NEED = 4;

const fsync = promisify(fs.fsync);

/** Flushes an open file or directory; other work goes on meanwhile. */
export async function fsyncAsync(fd: number): Promise<void> {
  await fsync(fd);
}

/**
 * Writes all waiting data of a folder's file system while this thread goes on. If syncfs(2) is not allowed, runs the
 * program `sync`. Throws errors of opening the folder, and `io` or `no_space` if the file system reports a failed
 * write, also of another process.
 */
export async function flushFileSystem(folder: string | Buffer): Promise<void> {
  await holding(folder, async (fd) => flushAt(fd, folder));
}

/**
 * Calls `work` with a descriptor of the folder. The descriptor keeps the file system even if the folder is replaced.
 */
async function holding<T>(folder: string | Buffer, work: (fd: number) => Promise<T>): Promise<T> {
  let fd: number;
  try {
    fd = fs.openSync(folder, DIRECTORY);
  } catch (error) {
    throw notFlushed(folder, error);
  }
  try {
    return await work(fd);
  } finally {
    fs.closeSync(fd);
  }
}

async function flushAt(fd: number, folder: string | Buffer): Promise<void> {
  try {
    const call = syncfsCall();
    if (call !== null) {
      const errno = await ended(call, fd);
      if (errno !== 0) throw notWritten(folder, errnoName(errno));
    } else if (!(await isSyncedByProgram())) await fsyncAsync(fd);
  } catch (error) {
    throw notFlushed(folder, error);
  }
}

function notFlushed(folder: string | Buffer, error: unknown): CairnError {
  return toCairnError(error, `write the file system of ${printablePath(Buffer.from(folder))} back`);
}

/** The kernel reports a failed write once, to the next flush. */
function notWritten(folder: string | Buffer, errno: string): CairnError {
  return new CairnError(
    codeOfErrno(errno),
    `the file system of ${printablePath(Buffer.from(folder))} could not write earlier data to its disk, and this data is lost: ${errno}`,
    { hint: "see the system's log: the file system, or its disk, is full or failing" },
  );
}

/** Null if the system lacks the call or does not allow it. */
function syncfsCall(): Waiting | null {
  const call = syncfs() as Waiting | null;
  return call === null || call(-1) === 0 || lastErrno() !== -EBADF ? null : call;
}

/** Returns 0 or the errno. */
async function ended(call: Waiting, fd: number): Promise<number> {
  if (call.async === undefined) return call(fd) === 0 ? 0 : lastErrno();
  return new Promise((resolve, reject) => {
    // The callback's thread still has the errno of its own call.
    call.async!(fd, (error, result) => {
      if (error) reject(toCairnError(error, "syncfs"));
      else resolve(result === 0 ? 0 : lastErrno());
    });
  });
}

async function isSyncedByProgram(): Promise<boolean> {
  try {
    await promisify(execFile)("sync");
    return true;
  } catch {
    return false;
  }
}

/**
 * Drops the page cache of an open, flushed file, so that it is read from the disk. False if the system lacks the call.
 */
export function forgetPages(fd: number): boolean {
  return fadvise()?.(fd, 0, 0, DONT_NEED) === 0;
}

/** Drops this kernel's cache of an open file whose content another system or program keeps: content, size and times. */
export function forgetFile(fd: number): void {
  forgetPages(fd);
  const facts = newArena(256);
  statx()?.(fd, facts.address, AT_EMPTY_PATH | FORCE_SYNC, BASIC_FACTS, facts.address);
}

/** Starts to read a part of an open file ahead, without waiting for it. */
export function fetchPages(fd: number, offset: number, length: number): void {
  fadvise()?.(fd, offset, length, WILL_NEED);
}

/** Milliseconds between two flushes during work. */
const PAUSE_MS = 200;

/**
 * Runs work that fills a folder, and flushes the file system repeatedly, so that little is left for the last flush. All
 * data is on the disk at the end. Throws the errors of {@link flushFileSystem}.
 */
export async function flushing<T>(folder: string | Buffer, work: () => Promise<T>): Promise<T> {
  return holding(folder, async (fd) => flushingAt(fd, { folder, work }));
}

async function flushingAt<T>(
  fd: number,
  { folder, work }: { folder: string | Buffer; work: () => Promise<T> },
): Promise<T> {
  const over = new AbortController();
  const flush = async (): Promise<void> => {
    // Without the call each flush would start the program `sync`.
    if (syncfsCall() === null) return;
    while (!over.signal.aborted) {
      await sleep(PAUSE_MS, undefined, { signal: over.signal }).catch(() => undefined);
      if (!over.signal.aborted) await flushAt(fd, folder);
    }
  };
  // An error is reported to one flush only, so the first is kept.
  const flushed = flush().then(
    () => null,
    (error: unknown) => ({ error }),
  );
  let done: T;
  try {
    done = await work();
  } finally {
    over.abort();
  }
  // After failed work nothing is flushed.
  const failure = await flushed;
  if (failure !== null) throw failure.error;
  await flushAt(fd, folder);
  return done;
}

const KEEP_SIZE = 1;
const fallocate = bindNativeLater("int fallocate(int fd, int mode, int64_t offset, int64_t length)");

/** Reserves the blocks of an open file's first `length` bytes and keeps its size. False if the file system refuses. */
export function allocate(fd: number, length: number): boolean {
  return length === 0 || fallocate()?.(fd, KEEP_SIZE, 0, length) === 0;
}
