import fs from "node:fs";
import {
  type DatabaseHeader,
  HEADER_BYTES,
  isLog,
  LOG_MAGIC_BYTES,
  MAGIC,
  parseHeader,
} from "../../formats/sqlite-header.ts";

/** True for an open file that begins as SQLite's databases do. */
export function isDatabase(fd: number): boolean {
  const head = Buffer.alloc(MAGIC.length);
  return fs.readSync(fd, head, 0, head.length, 0) === head.length && head.equals(MAGIC);
}

/** Reads an open file's header; null where it is no database. */
export function readHeader(fd: number): DatabaseHeader | null {
  const bytes = Buffer.alloc(HEADER_BYTES);
  return fs.readSync(fd, bytes, 0, HEADER_BYTES, 0) === HEADER_BYTES ? parseHeader(bytes) : null;
}

/** True for an open file that begins as a log does which SQLite applies to the database beside it. */
export function beginsAsLog(fd: number): boolean {
  const bytes = Buffer.alloc(LOG_MAGIC_BYTES);
  return fs.readSync(fd, bytes, 0, LOG_MAGIC_BYTES, 0) === LOG_MAGIC_BYTES && isLog(bytes);
}
