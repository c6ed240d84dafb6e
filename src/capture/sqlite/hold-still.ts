import fs from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { beside, SHARED_BYTES, SIDECARS } from "../../formats/sqlite-header.ts";
import { openRegular } from "../../fs/regular-file.ts";
import { kernelLocksAvailable, releaseKernelLock, tryKernelLock } from "../../fs/linux/kernel-lock.ts";
import { readHeader } from "./header.ts";

/**
 * Blocks writes to databases with SQLite's own locks and without a connection, so that nothing is written and no log is
 * checkpointed: on a writer's byte of a log's index, or as a reader of a database without a log.
 */

/** Bytes that SQLite locks: https://www.sqlite.org/walformat.html#locks and the pending and shared locks of `os.h`. */
const WRITER = { start: 120, length: 1 };
const PENDING = { start: 0x4000_0000, length: 1 };
const PAUSE_MS = 1;

export interface StillRequest {
  /** Absolute raw paths. Files that are no databases are skipped. */
  databases: readonly Uint8Array[];
  /** Milliseconds after which every lock is released, even if not all were taken. */
  budgetMs: number;
}

/** Open files with a lock, until they are closed. */
let locked: { fds: number[]; timer: NodeJS.Timeout } | null = null;

/** Locks all databases at once, or none. Returns the numbers of the databases held until {@link letGo}. */
export async function holdStill({ databases, budgetMs }: StillRequest): Promise<number[]> {
  const deadline = performance.now() + budgetMs;
  while (kernelLocksAvailable() && performance.now() < deadline) {
    const fds: number[] = [];
    const held = lockAll(databases, fds);
    if (held !== null) {
      const timer = setTimeout(() => void letGo(), Math.max(0, deadline - performance.now()));
      locked = { fds, timer };
      return held;
    }
    for (const fd of fds) fs.closeSync(fd);
    await sleep(PAUSE_MS);
  }
  return [];
}

/** Releases the locks; false if they were released before. */
export function letGo(): boolean {
  if (locked === null) return false;
  clearTimeout(locked.timer);
  for (const fd of locked.fds) fs.closeSync(fd);
  locked = null;
  return true;
}

/** Null while a program writes to one of the databases. Opened files go to `fds`. */
function lockAll(databases: readonly Uint8Array[], fds: number[]): number[] | null {
  const held: number[] = [];
  for (const [i, path] of databases.entries()) {
    const locks = lockOne(path, fds);
    if (locks === false) return null;
    if (locks) held.push(i);
  }
  return held;
}

/** True if no program can write to a database from now on, false while one does, null if neither is known. */
function lockOne(path: Uint8Array, fds: number[]): boolean | null {
  try {
    const fd = openRegular(Buffer.from(path));
    fds.push(fd);
    const header = readHeader(fd);
    // A new database has no header until its first transaction writes one; a file beside it tells.
    const isEmpty = header === null && fs.fstatSync(fd).size === 0;
    const has = (ending: (typeof SIDECARS)[number]): boolean => isEmpty && fs.existsSync(beside(path, ending));
    if (header === null && !SIDECARS.some(has)) return null;
    if (header?.journal_mode === "wal" || has("-shm")) {
      const index = openRegular(beside(path, "-shm"), { flags: fs.constants.O_RDWR });
      fds.push(index);
      return tryKernelLock(index, false, WRITER);
    }
    if (!tryKernelLock(fd, true, PENDING) || !tryKernelLock(fd, true, SHARED_BYTES)) return false;
    releaseKernelLock(fd, PENDING);
    return true;
  } catch (error) {
    // A database without the log's index is open nowhere; without the right to lock it, the answer is not known.
    return (error as NodeJS.ErrnoException).code === "ENOENT" && fs.existsSync(Buffer.from(path)) ? true : null;
  }
}
