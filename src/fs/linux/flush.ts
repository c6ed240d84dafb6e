import { execFile } from "node:child_process";
import fs from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { CairnError, codeOfErrno, toCairnError } from "../../errors.ts";
import { bindNativeLater, lastErrno, type NativeFunction } from "../../native.ts";
import { EBADF } from "./errno.ts";
import { printablePath } from "../paths/safe-path.ts";
import { errnoName } from "./syscalls.ts";

const DIRECTORY = fs.constants.O_RDONLY | fs.constants.O_DIRECTORY;

type Waiting = NativeFunction & { async?: (fd: number, ended: (error: unknown, result: number) => void) => void };

const syncfs = bindNativeLater("int syncfs(int fd)");
const fadvise = bindNativeLater("int posix_fadvise(int fd, int64_t offset, int64_t length, int advice)");
const WILL_NEED = 3;
const DONT_NEED = 4;
const fsync = promisify(fs.fsync);
const run = promisify(execFile);

/**
 * Has all that waits to be written on a folder's file system written, while this thread goes on. Where nobody may make
 * the call the program `sync` is asked. Throws what the folder cannot be opened for; `io` or `no_space` where the
 * file system says that something it was given could not be written, be it somebody else's.
 */
export async function flushFileSystem(folder: string | Buffer): Promise<void> {
  await holding(folder, async (fd) => flushAt(fd, folder));
}

/** With a descriptor of a folder, which stands for its file system also while the folder is taken away to be made anew. */
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
    } else if (!(await isSyncedByProgram())) await fsync(fd);
  } catch (error) {
    throw notFlushed(folder, error);
  }
}

function notFlushed(folder: string | Buffer, error: unknown): CairnError {
  return toCairnError(error, `write the file system of ${printablePath(Buffer.from(folder))} back`);
}

/** It is said once, by the first flush after it. */
function notWritten(folder: string | Buffer, errno: string): CairnError {
  return new CairnError(
    codeOfErrno(errno),
    `the file system of ${printablePath(Buffer.from(folder))} could not write earlier data to its disk, and this data is lost: ${errno}`,
    { hint: "see the system's log: the file system, or its disk, is full or failing" },
  );
}

/** Null where the system has no such call, or lets nobody make it. */
function syncfsCall(): Waiting | null {
  const call = syncfs() as Waiting | null;
  return call === null || call(-1) === 0 || lastErrno() !== -EBADF ? null : call;
}

/** 0, or the errno. */
async function ended(call: Waiting, fd: number): Promise<number> {
  if (call.async === undefined) return call(fd) === 0 ? 0 : lastErrno();
  return new Promise((resolve, reject) => {
    // The callback finds the errno of its own call.
    call.async!(fd, (error, result) => {
      if (error) reject(toCairnError(error, "syncfs"));
      else resolve(result === 0 ? 0 : lastErrno());
    });
  });
}

async function isSyncedByProgram(): Promise<boolean> {
  try {
    await run("sync");
    return true;
  } catch {
    return false;
  }
}

/**
 * Has the system give up what it holds in memory of an open file that was flushed, so that it is read from the disk.
 * False where it cannot be asked.
 */
export function forgetPages(fd: number): boolean {
  return fadvise()?.(fd, 0, 0, DONT_NEED) === 0;
}

/** Has the system begin to read a part of an open file, without waiting for it. */
export function fetchPages(fd: number, offset: number, length: number): void {
  fadvise()?.(fd, offset, length, WILL_NEED);
}

/** Between two flushes while work goes on. */
const PAUSE_MS = 200;

/**
 * Runs work that fills a folder, and has all that it has written on the disk at the end: most of it goes there meanwhile,
 * so that there is little to wait for. Throws as {@link flushFileSystem} does.
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
    // A whole program would be started each time.
    if (syncfsCall() === null) return;
    while (!over.signal.aborted) {
      await sleep(PAUSE_MS, undefined, { signal: over.signal }).catch(() => undefined);
      if (!over.signal.aborted) await flushAt(fd, folder);
    }
  };
  // What one flush was told the next one is not.
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
  // Work that has failed waits for no disk.
  const failure = await flushed;
  if (failure !== null) throw failure.error;
  await flushAt(fd, folder);
  return done;
}
