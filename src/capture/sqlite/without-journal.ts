import fs from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import {
  beside,
  type DatabaseHeader,
  LOCK_BYTE_OFFSET,
  SHARED_BYTES,
  SIDECARS,
  WRITER_BYTES,
} from "../../formats/sqlite-header.ts";
import { isWriteLocked, lockedFrom } from "../../fs/linux/kernel-lock.ts";
import { inFile, logsBeside, readHeader } from "./header.ts";
import { inOpenFile, ownDescriptors } from "./quiet-database.ts";

/** Milliseconds in which a program that has a journal shows it, or lets go of its lock, even on a loaded machine. */
const BUDGET_MS = 200;
const PAUSE_MS = 1;

/** A database whose file a program may be changing without a journal on the disk; `looks` tell later changes. */
export interface Suspect {
  place: Uint8Array;
  looks: string;
}

interface Look {
  /** A program has the database open, or left the index of its log. */
  isUsed: boolean;
  /** A program may change the file, which is in rollback mode. */
  isLocked: boolean;
  hasJournal: boolean;
  looks: string;
  changedAt: number;
}

/** A database as the kernel's locks and the files beside it show it. */
export interface AskedDatabase {
  place: Uint8Array;
  isUsed: boolean;
  suspect: Suspect | null;
  looks: string;
  /** ms since 1970 */
  changedAt: number;
}

/**
 * Returns the databases among files (absolute raw paths). Asks the kernel for locks on SQLite's bytes, which it knows of
 * every process, also in other PID namespaces. Opens no file that this process has open: closing a second descriptor
 * would release the locks of this process's own SQLite.
 */
export function askDatabases(places: readonly Uint8Array[]): AskedDatabase[] {
  const own = ownDescriptors();
  return places.flatMap((place) => {
    const now = lookAt(place, own);
    if (now === null) return [];
    const { isUsed, isLocked, hasJournal, looks, changedAt } = now;
    return [{ place, isUsed, suspect: isLocked && !hasJournal ? { place, looks } : null, looks, changedAt }];
  });
}

/**
 * Returns how a database lies in a snapshot, and when it was changed last (ms since 1970). Null if it is not there or
 * empty, if it has a log, or if a journal beside it makes it whole.
 */
export function lookInSnapshot(place: Uint8Array): { looks: string; changedAt: number } | null {
  if (fs.lstatSync(Buffer.from(place), { throwIfNoEntry: false })?.isFile() !== true) return null;
  return inFile(place, (fd) => {
    const header = readHeader(fd);
    const facts = fs.fstatSync(fd, { bigint: true });
    if (facts.size === 0n || header?.journal_mode === "wal" || logsBeside(place).length > 0) return null;
    return { looks: looksOf(facts, header), changedAt: Number(facts.ctimeNs) / 1e6 };
  });
}

/** Equal for a file and its copy in a snapshot, unless a program wrote to the file between. */
function looksOf({ ino, size, mtimeNs, ctimeNs }: fs.BigIntStats, header: DatabaseHeader | null): string {
  return [ino, size, mtimeNs, ctimeNs, header?.change_counter].join();
}

/** Waits until a program shows the journal of its next transaction; false if it shows none. */
export async function showsJournal(place: Uint8Array): Promise<boolean> {
  for (const deadline = performance.now() + BUDGET_MS; performance.now() < deadline; await sleep(PAUSE_MS))
    if (logsBeside(place).length > 0) return true;
  return false;
}

/**
 * Tells if a suspect had half of a transaction in its file. A program with a journal has removed it, and unlocks the
 * unchanged file next, or it soon writes another journal.
 */
export async function wasHalfWritten({ place, looks }: Suspect): Promise<boolean> {
  for (const deadline = performance.now() + BUDGET_MS; performance.now() < deadline; await sleep(PAUSE_MS)) {
    const now = lookAt(place);
    if (now !== null && (now.hasJournal || (!now.isLocked && now.looks === looks))) return false;
  }
  return true;
}

/**
 * Null if the file is no database. A new database has no header until its first transaction writes one: a file beside it
 * or a lock tells. A lock of another program begins before SQLite's bytes.
 */
function lookAt(place: Uint8Array, own = ownDescriptors()): Look | null {
  const look = (fd: number): Look | null => {
    const facts = fs.fstatSync(fd, { bigint: true });
    const header = readHeader(fd);
    const from = lockedFrom(fd, WRITER_BYTES);
    const hasLock = from !== null && (header !== null || from >= LOCK_BYTE_OFFSET);
    const isNew = facts.size === 0n && SIDECARS.some((ending) => fs.existsSync(beside(place, ending)));
    if (header === null && !hasLock && !isNew) return null;
    return {
      isUsed: hasLock || fs.existsSync(beside(place, "-shm")),
      isLocked: hasLock && header?.journal_mode !== "wal" && isWriteLocked(fd, SHARED_BYTES),
      hasJournal: logsBeside(place).length > 0,
      looks: looksOf(facts, header),
      changedAt: Number(facts.ctimeNs) / 1e6,
    };
  };
  return inOpenFile(place, look, own);
}
