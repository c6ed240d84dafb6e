import fs from "node:fs";
import { isWriteLocked } from "../../fs/linux/kernel-lock.ts";
import { openRegular } from "../../fs/regular-file.ts";
import {
  beside,
  type DatabaseHeader,
  HEADER_BYTES,
  isLog,
  LOG_MAGIC_BYTES,
  LOGS,
  MAGIC,
  parseHeader,
  WRITER_BYTES,
} from "../../formats/sqlite-header.ts";

/** True for an open file that begins like a SQLite database. */
export function isDatabase(fd: number): boolean {
  const head = Buffer.alloc(MAGIC.length);
  return fs.readSync(fd, head, 0, head.length, 0) === head.length && head.equals(MAGIC);
}

/** Reads an open file's header; null if it is no database. */
export function readHeader(fd: number): DatabaseHeader | null {
  const bytes = Buffer.alloc(HEADER_BYTES);
  return fs.readSync(fd, bytes, 0, HEADER_BYTES, 0) === HEADER_BYTES ? parseHeader(bytes) : null;
}

const NO_JOURNAL =
  "a program is in a transaction and has no journal on the disk: it has written nothing yet, or it has journal_mode MEMORY or OFF and the copy may have half of the transaction";
/** SQLite writes the header when it flushes the journal, and only then writes into the database. */
const NO_HEADER =
  "a program is in a transaction and the journal beside the database has no header yet: probably nothing of the transaction is in the copy, but that is not proven";

/** Reason of a copy without a valid journal, made while {@link isBeingWritten} was true; null if it has one. */
export function whyHalf(copy: Uint8Array): string | null {
  if (logsBeside(copy).length > 0) return null;
  return (fs.lstatSync(beside(copy, "-journal"), { throwIfNoEntry: false })?.size ?? 0) > 0 ? NO_HEADER : NO_JOURNAL;
}

/** True if a database without a log or journal beside it lacks pages that its header counts. */
export function isShort(path: Uint8Array, header: DatabaseHeader | null, bytes: number): boolean {
  return (
    header !== null && header.pages !== null && header.pages * header.page_size > bytes && logsBeside(path).length === 0
  );
}

/** True if a program has begun to write to the database of an open file, by SQLite's locks of rollback mode. */
export function isBeingWritten(fd: number): boolean {
  return isWriteLocked(fd, WRITER_BYTES);
}

/** True for an open file that begins like a log which SQLite applies to the database beside it. */
function beginsAsLog(fd: number): boolean {
  const bytes = Buffer.alloc(LOG_MAGIC_BYTES);
  return fs.readSync(fd, bytes, 0, LOG_MAGIC_BYTES, 0) === LOG_MAGIC_BYTES && isLog(bytes);
}

/** Endings of the files beside this place that SQLite would apply to a database here. */
export function logsBeside(place: Uint8Array): (typeof LOGS)[number][] {
  return LOGS.filter((ending) => startsAsLog(beside(place, ending)));
}

function startsAsLog(place: Buffer): boolean {
  // Usually there is no log.
  if (!fs.existsSync(place)) return false;
  try {
    return inFile(place, beginsAsLog);
  } catch {
    // SQLite, as the same user, could not read it either.
    return false;
  }
}

/** Opens a regular file for a short read. Throws the system's error. */
export function inFile<T>(place: Uint8Array, read: (fd: number) => T): T {
  const fd = openRegular(Buffer.from(place));
  try {
    return read(fd);
  } finally {
    fs.closeSync(fd);
  }
}
