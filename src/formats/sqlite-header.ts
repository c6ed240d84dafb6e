import { latin1 } from "./bytes.ts";

/** Layout of SQLite's database files, as far as a capture needs it: https://www.sqlite.org/fileformat.html */

/** Consistency labels that only databases have. */
export const DATABASE_LABELS: ReadonlySet<string> = new Set([
  "transaction-consistent",
  "crash-consistent",
  "torn-possible",
]);

/** The first bytes of every database. */
export const MAGIC = Buffer.from("SQLite format 3\0", "latin1");
/** Bytes of the header at the start of the first page. */
export const HEADER_BYTES = 100;
/** Offset of the bytes that SQLite locks and never writes. Their page has no content. */
export const LOCK_BYTE_OFFSET = 0x4000_0000;
/** The bytes on which a writer of a database without a log holds a write lock: pending, reserved, shared. */
export const WRITER_BYTES = { start: LOCK_BYTE_OFFSET, length: 512 } as const;
/** The bytes on which a program holds a write lock while it changes the file of a database without a log. */
export const SHARED_BYTES = { start: LOCK_BYTE_OFFSET + 2, length: 510 } as const;
/** Suffixes of a database's other files: write-ahead log, its index, rollback journal. */
export const SIDECARS = ["-wal", "-shm", "-journal"] as const;
/** Suffixes of the files whose content the database needs. The index of a log can be rebuilt. */
export const LOGS = ["-wal", "-journal"] as const;
/** The first version without an error in which two connections damage a database when the log restarts. */
export const SAFE_WAL_VERSION = 3_051_003;

export interface DatabaseHeader {
  /** Bytes, a power of two from 512 to 65536. */
  page_size: number;
  /** From the header; null if the last writer was a program that does not maintain it. */
  pages: number | null;
  journal_mode: "wal" | "rollback";
  change_counter: number;
  user_version: number;
  application_id: number;
  /** Version of the SQLite that wrote last, e.g. 3051003 for 3.51.3. */
  written_by: number;
}

/** Returns the facts of a header; null if it is not SQLite's. */
export function parseHeader(bytes: Buffer): DatabaseHeader | null {
  if (bytes.length < HEADER_BYTES || !bytes.subarray(0, MAGIC.length).equals(MAGIC)) return null;
  const stored = bytes.readUInt16BE(16);
  const pageSize = stored === 1 ? 65_536 : stored;
  if (pageSize < 512 || (pageSize & (pageSize - 1)) !== 0) return null;
  const counter = bytes.readUInt32BE(24);
  const pages = bytes.readUInt32BE(28);
  return {
    page_size: pageSize,
    pages: pages > 0 && counter === bytes.readUInt32BE(92) ? pages : null,
    journal_mode: bytes[18] === 2 || bytes[19] === 2 ? "wal" : "rollback",
    change_counter: counter,
    user_version: bytes.readInt32BE(60),
    application_id: bytes.readInt32BE(68),
    written_by: bytes.readUInt32BE(96),
  };
}

/** Bytes at the begin of a log that identify it. */
export const LOG_MAGIC_BYTES = 8;
const LOG_MAGIC = /^(?:377f068[23]|d9d505f920a163d7)/;

/** True for the first bytes of a `-wal` or `-journal` that SQLite would apply to its database. */
export function isLog(bytes: Buffer): boolean {
  return bytes.length >= LOG_MAGIC_BYTES && LOG_MAGIC.test(bytes.toString("hex", 0, LOG_MAGIC_BYTES));
}

/** Returns the path of a database's file with this suffix. */
export function beside(database: Uint8Array, ending: string): Buffer {
  return Buffer.concat([database, Buffer.from(ending)]);
}

/** Returns the path of the database for one of its other files; null if the name has no such suffix. */
export function besideWhich(path: Uint8Array): Uint8Array | null {
  const ending = SIDECARS.find((each) => latin1(path).endsWith(each));
  return ending === undefined ? null : path.subarray(0, path.length - ending.length);
}

/** The smallest page size; every database is a multiple of it. */
const LEAST_PAGE = 512;

/** True if a database may have this size. */
export function mayBeDatabase({ size }: { size: number }): boolean {
  return size > 0 && size % LEAST_PAGE === 0;
}

/** Returns the range of the page without content; null if the file ends before it. */
export function lockPage(pageSize: number, bytes: number): { from: number; to: number } | null {
  return bytes > LOCK_BYTE_OFFSET ? { from: LOCK_BYTE_OFFSET, to: LOCK_BYTE_OFFSET + pageSize } : null;
}
