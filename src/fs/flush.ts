import { execFile } from "node:child_process";
import fs from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { toCairnError } from "../errors.ts";
import { bindNativeLater, type NativeFunction } from "../native.ts";
import { syncWholeVolume } from "./darwin.ts";
import { printablePath } from "./safe-path.ts";

const DIRECTORY = fs.constants.O_RDONLY | fs.constants.O_DIRECTORY;

type Waiting = NativeFunction & { async?: (fd: number, ended: (error: unknown, result: number) => void) => void };

const syncfs = bindNativeLater("int syncfs(int fd)");
const fadvise = bindNativeLater("int posix_fadvise(int fd, int64_t offset, int64_t length, int advice)");
const WILL_NEED = 3;
const DONT_NEED = 4;
const fsync = promisify(fs.fsync);
const run = promisify(execFile);

/**
 * Has all that waits to be written on a folder's file system written, while this thread goes on. Where neither Linux's
 * nor macOS's call is to be had the program `sync` is asked. Throws what the folder cannot be opened for, and what the file system says of the folder itself
 * where its whole could not be written.
 */
export async function flushFileSystem(folder: string | Buffer): Promise<void> {
  let fd: number | null = null;
  try {
    fd = fs.openSync(folder, DIRECTORY);
    if (!(await isSynced(fd, folder))) await fsync(fd);
  } catch (error) {
    throw toCairnError(error, `write the file system of ${printablePath(Buffer.from(folder))} back`);
  } finally {
    if (fd !== null) fs.closeSync(fd);
  }
}

async function isSynced(fd: number, folder: string | Buffer): Promise<boolean> {
  const call = syncfs() as Waiting | null;
  if (call === null) return (await syncWholeVolume(folder)) || (await isSyncedByProgram());
  if (call.async === undefined) return call(fd) === 0;
  return new Promise((resolve, reject) => {
    call.async!(fd, (error, result) => (error ? reject(toCairnError(error, "syncfs")) : resolve(result === 0)));
  });
}

async function isSyncedByProgram(): Promise<boolean> {
  try {
    await run("sync");
    // Only Linux's waits until all of it is written.
    return process.platform === "linux";
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
  const over = new AbortController();
  const flush = async (): Promise<void> => {
    // Without native calls a whole program would be started each time.
    if (syncfs() === null) return;
    while (!over.signal.aborted) {
      await sleep(PAUSE_MS, undefined, { signal: over.signal });
      await flushFileSystem(folder);
    }
  };
  // Whether all of it has arrived is asked at the end.
  const flushed = flush().catch(() => undefined);
  let done: T;
  try {
    done = await work();
  } finally {
    over.abort();
  }
  // Work that has failed waits for no disk.
  await flushed;
  await flushFileSystem(folder);
  return done;
}
