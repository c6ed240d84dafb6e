import { latin1 } from "./bytes.ts";

/**
 * The trailer of SQLite's rollback journals, which joins transactions of several databases:
 * https://www.sqlite.org/atomiccommit.html
 */

/** The most bytes of a trailer: SQLite opens no longer path. */
export const MOST_TRAILER_BYTES = 4 + 512 + 16;
const FOOT_BYTES = 16;
const MAGIC = "d9d505f920a163d7";
/** Length of the ending that SQLite adds to a database's name for the super-journal. */
export const SUPER_JOURNAL_BYTES = 12;
const SUPER_JOURNAL = /-mj[0-9A-F]{6}9[0-9A-F]{2}$/;

/** The trailer of a journal whose transaction is committed when its super-journal is removed. */
export interface JournalTrailer {
  /** Absolute raw path of the super-journal, in the view of the writing program. */
  superJournal: Buffer;
  /** Length of the trailer at the end of the journal. */
  bytes: number;
}

/** Parses the trailer in the last bytes of a journal; null if the journal names no super-journal. */
export function parseTrailer(tail: Buffer): JournalTrailer | null {
  const foot = tail.length - FOOT_BYTES;
  if (foot < 4 || tail.toString("hex", foot + 8) !== MAGIC) return null;
  const length = tail.readUInt32BE(foot);
  if (length === 0 || length + 4 > foot) return null;
  const superJournal = tail.subarray(foot - length, foot);
  const checksum = tail.readUInt32BE(foot + 4);
  // SQLite sums the bytes as C's `char`, which is signed on some processors.
  const isSum = (sign: boolean): boolean =>
    superJournal.reduce((sum, byte) => (sum + (sign && byte > 127 ? byte - 256 : byte)) >>> 0, 0) === checksum;
  return isSum(true) || isSum(false) ? { superJournal, bytes: length + 4 + FOOT_BYTES } : null;
}

/** Tells whether a file has the name of a super-journal, for example `app.db-mj1A2B3C904`. */
export function isSuperJournalName(name: Uint8Array): boolean {
  return SUPER_JOURNAL.test(latin1(name.subarray(-SUPER_JOURNAL_BYTES)));
}

/** Returns the raw paths of the journals that a super-journal lists. */
export function journalsOf(superJournal: Buffer): Buffer[] {
  return latin1(superJournal)
    .split("\0")
    .filter((path) => path !== "")
    .map((path) => Buffer.from(path, "latin1"));
}
