import { createHash, type Hash } from "node:crypto";
import fs from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { setImmediate as turn } from "node:timers/promises";
import { append } from "../../append.ts";
import { CairnError } from "../../errors.ts";
import { whyLocksAreLocal } from "../../fs/linux/kernel-lock.ts";
import { openRegular } from "../../fs/regular-file.ts";
import { listedNames } from "../../fs/paths/safe-path.ts";
import { lockPage } from "../../formats/sqlite-header.ts";
import { isBeingWritten } from "./header.ts";

/** Counts of a database's content, compared after a restore. */
export interface Statistics {
  /** Tables that have rows of their own, by name. */
  tables: {
    name: string;
    /** Null if its key needs a collation that only its own program has. */ rows: number | null;
  }[];
  /** SHA-256 of the statements that make the schema. */
  schema_sha256: string;
  user_version: number;
  application_id: number;
}

/** Ways in which a connection opens a file: `rw` and `ro` with locks, `image` for a private file, without locks and sidecars. */
export type OpenMode = "rw" | "ro" | "image";

/** SQLite's own limit, less the longest ending of a sidecar. */
export const MOST_PATH_BYTES = 512 - "-journal".length - 1;

const CHUNK = 1 << 20;
const ZEROS = Buffer.alloc(CHUNK);

/** The URL with which SQLite opens an existing file and creates none. */
export function databaseUrl(path: Uint8Array, mode: OpenMode): URL {
  const escaped = Array.from(path, (byte) => {
    const letter = String.fromCharCode(byte);
    return /[\w/.-]/.test(letter) ? letter : `%${byte.toString(16).padStart(2, "0")}`;
  });
  return new URL(
    `file://${escaped.join("")}?mode=${mode === "rw" ? "rw" : "ro"}${mode === "image" ? "&immutable=1" : ""}`,
  );
}

/** Opens an existing database. Does not trust functions that its schema names. Throws SQLite's error. */
export function openDatabase(path: Uint8Array, mode: OpenMode, waitMs = 0): DatabaseSync {
  const database = new DatabaseSync(databaseUrl(path, mode), { readOnly: mode !== "rw", timeout: waitMs });
  database.exec("PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON");
  return database;
}

/** Applies the log or journal beside a private database and removes it, as a program does after a crash. */
export function applyLog(file: Buffer): void {
  const database = openDatabase(file, "rw");
  try {
    database.exec("SELECT count(*) FROM sqlite_schema; PRAGMA wal_checkpoint(TRUNCATE)");
  } finally {
    database.close();
  }
}

/** Turns an error of SQLite into `damaged`; returns any other error unchanged. */
export function sqliteError(error: unknown, doing: string): unknown {
  if ((error as { code?: unknown }).code !== "ERR_SQLITE_ERROR") return error;
  return new CairnError("damaged", `${doing}: ${(error as Error).message}`, { cause: error });
}

/** Runs a statement that returns one number. */
export function ask(database: DatabaseSync, statement: string): number {
  return Number(Object.values(database.prepare(statement).get() ?? {})[0]);
}

/**
 * Returns an expression for the text of a column as it is stored: a path that is not UTF-8 would be another path once it
 * is decoded. `encoding`: the answer of `PRAGMA encoding`; UTF-16 is decoded.
 */
export function storedText(column: string, encoding: unknown): string {
  return encoding === "UTF-8" ? `CAST(${column} AS BLOB)` : column;
}

/** Counts the content of an open database. Throws SQLite's error. */
export function statisticsOf(database: DatabaseSync): Statistics {
  const schema = database.prepare("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name").all();
  const tables = tablesOf(database).map((name) => ({
    name,
    rows: orUnknown(() => ask(database, `SELECT count(*) FROM ${quoted(name)}`)),
  }));
  return {
    tables,
    schema_sha256: createHash("sha256")
      .update(JSON.stringify(schema.map((row) => Object.values(row))))
      .digest("hex"),
    user_version: ask(database, "PRAGMA user_version"),
    application_id: ask(database, "PRAGMA application_id"),
  };
}

function tablesOf(database: DatabaseSync): string[] {
  const named = database.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 ORDER BY name");
  return named.all().map(({ name }) => String(name));
}

function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** Null if a collation or function is needed that only the database's own program has. Throws other errors of SQLite. */
function orUnknown<T>(look: () => T): T | null {
  try {
    return look();
  } catch (error) {
    if (/no such collation|(?:unknown|no such) (?:function|module)/.test((error as Error).message)) return null;
    throw error;
  }
}

/**
 * Lets SQLite check an open database, all of it or only its structure. Returns the problems, and the tables that it
 * cannot check because their indexes or conditions need functions of the database's own program.
 */
export function checked(database: DatabaseSync, full: boolean): { problems: string[]; unchecked: string[] } {
  const pragma = full ? "integrity_check" : "quick_check";
  const linesOf = (statement: string): string[] | null =>
    orUnknown(() => {
      const lines = database
        .prepare(statement)
        .all()
        .map((row) => String(Object.values(row)[0]));
      return lines.length === 1 && lines[0] === "ok" ? [] : lines;
    });
  const whole = linesOf(`PRAGMA ${pragma}`);
  if (whole !== null) return { problems: whole, unchecked: [] };
  const found: { problems: string[]; unchecked: string[] } = { problems: [], unchecked: [] };
  for (const name of tablesOf(database)) {
    const lines = linesOf(`PRAGMA ${pragma}(${quoted(name)})`);
    if (lines === null) found.unchecked.push(name);
    else append(found.problems, lines);
  }
  return found;
}

/** Says which tables were not checked; empty if all were. */
export function warningOf(unchecked: readonly string[]): string[] {
  if (unchecked.length === 0) return [];
  return [
    `SQLite cannot check ${listedNames(unchecked)}: this needs functions or collations of the program that uses the database`,
  ];
}

/** Copies the first bytes of an open file into an empty one; zeros become holes. Lets other tasks run after each piece. */
export async function copyBytes(from: number, to: number, bytes: number): Promise<void> {
  const room = Buffer.allocUnsafe(Math.min(CHUNK, Math.max(bytes, 1)));
  for (let at = 0; at < bytes;) {
    const length = fs.readSync(from, room, 0, Math.min(room.length, bytes - at), at);
    if (length === 0) throw new Error(`the file ends at ${at} of ${bytes} bytes`);
    const isHole = room.subarray(0, length).equals(ZEROS.subarray(0, length));
    for (let done = 0; done < length && !isHole;) done += fs.writeSync(to, room, done, length - done, at + done);
    at += length;
    await turn();
  }
  fs.ftruncateSync(to, bytes);
}

/** Writes zeros over the page at the lock byte: it has no content, so its bytes on disk mean nothing. */
export function clearLockPage(fd: number, pageSize: number): void {
  const page = lockPage(pageSize, fs.fstatSync(fd).size);
  if (page !== null) fs.writeSync(fd, Buffer.alloc(page.to - page.from), 0, page.to - page.from, page.from);
}

/** SHA-256 of an open file's bytes; if a page size is given, without the page at the lock byte. */
export async function hashOf(fd: number, pageSize: number | null): Promise<string> {
  const { size } = fs.fstatSync(fd);
  const hash = createHash("sha256");
  const gap = pageSize === null ? null : lockPage(pageSize, size);
  await hashRange(fd, hash, { from: 0, to: gap?.from ?? size });
  if (gap !== null) await hashRange(fd, hash, { from: gap.to, to: size });
  return hash.digest("hex");
}

async function hashRange(fd: number, hash: Hash, { from, to }: { from: number; to: number }): Promise<void> {
  const room = Buffer.allocUnsafe(CHUNK);
  for (let at = from; at < to;) {
    const length = fs.readSync(fd, room, 0, Math.min(CHUNK, to - at), at);
    if (length === 0) return;
    hash.update(room.subarray(0, length));
    at += length;
    await turn();
  }
}

/** Facts of a database, found by SQLite. */
export interface DatabaseProof {
  bytes: number;
  /** Null if it cannot be opened. */
  page_size: number | null;
  pages: number | null;
  /** Hash of the file, without the page at the lock byte. */
  sha256: string;
  check: "quick_check" | "integrity_check";
  /** Problems that SQLite found; empty if there are none. */
  problems: string[];
  statistics: Statistics | null;
  duration_ms: number;
}

export interface CheckRequest {
  /** Absolute raw path. */
  path: Uint8Array;
  /** Looks only if the database is in use. */
  isLarge: boolean;
  /** The database lies in a held tree, which nobody uses. */
  isHeld: boolean;
}

/**
 * Lets SQLite check the structure of a database that was read as a plain file. Null if a plain file is not enough: a
 * program writes to it, or its locks do not tell.
 */
export function check({ path, isLarge, isHeld }: CheckRequest): { problem: string | null } | null {
  let fd: number;
  try {
    fd = openRegular(Buffer.from(path));
  } catch (error) {
    return { problem: damageOf((error as Error).message) };
  }
  const isInUse = (): boolean => !isHeld && isBeingWritten(fd);
  try {
    if (isInUse() || (!isHeld && whyLocksAreLocal(fd, path) !== null)) return null;
    const problem = isLarge ? null : problemOf(path);
    return isInUse() ? null : { problem };
  } finally {
    fs.closeSync(fd);
  }
}

/** Lets SQLite check the structure of a database that no process writes to. Returns the problem, or null. */
export function problemOf(path: Uint8Array): string | null {
  if (path.length > MOST_PATH_BYTES)
    return `SQLite did not check it, because it opens no path of more than ${MOST_PATH_BYTES} bytes`;
  try {
    const database = openDatabase(path, "image");
    try {
      const [problem] = checked(database, false).problems;
      return problem === undefined ? null : damageOf(problem);
    } finally {
      database.close();
    }
  } catch (error) {
    return damageOf((error as Error).message);
  }
}

/** Words a problem that SQLite found for a label. */
export function damageOf(problem: string): string {
  return `SQLite finds it damaged: ${problem}`;
}

export interface ProveRequest {
  path: Uint8Array;
  /** The database is private: the log or journal beside it is applied first, everything is checked, and the check may change the files. */
  own: boolean;
}

/** Lets SQLite check a database that no process writes to, counts its content, and hashes its file. */
export async function prove({ path, own }: ProveRequest): Promise<DatabaseProof> {
  const started = performance.now();
  const found: Pick<DatabaseProof, "page_size" | "pages" | "problems" | "statistics"> = {
    page_size: null,
    pages: null,
    problems: [],
    statistics: null,
  };
  try {
    const database = openDatabase(path, own ? "rw" : "image");
    try {
      found.problems = checked(database, own).problems;
      found.page_size = ask(database, "PRAGMA page_size");
      found.pages = ask(database, "PRAGMA page_count");
      if (found.problems.length === 0) found.statistics = statisticsOf(database);
    } finally {
      database.close();
    }
  } catch (error) {
    // A database that cannot be opened has that as its problem.
    found.problems = [error instanceof Error ? error.message : String(error)];
  }
  const fd = openRegular(Buffer.from(path));
  try {
    const sha256 = await hashOf(fd, found.page_size);
    const check = own ? "integrity_check" : "quick_check";
    const duration_ms = Math.round(performance.now() - started);
    return { bytes: fs.fstatSync(fd).size, ...found, sha256, check, duration_ms };
  } finally {
    fs.closeSync(fd);
  }
}

export interface AskRequest {
  path: Uint8Array;
  statements: readonly string[];
  /** Lets SQLite check all of the database before. */
  full: boolean;
}

/** Returns the problems of a database that no process uses, and the rows of statements about it. Changes nothing. */
export function askOf({ path, statements, full }: AskRequest): { problems: string[]; answers: unknown[][][] } {
  try {
    const database = openDatabase(path, "image");
    try {
      const problems = full ? checked(database, true).problems : [];
      if (problems.length > 0) return { problems, answers: [] };
      return {
        problems,
        answers: statements.map((each) =>
          database
            .prepare(each)
            .all()
            .map((row) => Object.values(row)),
        ),
      };
    } finally {
      database.close();
    }
  } catch (error) {
    throw sqliteError(error, "read the database");
  }
}
