import { flag, named, number, object, type Of, oneOf, opt, orNull, pick, place, rows, text } from "./schema.ts";
import { CallOptions, Holder, NamedPath } from "./words.ts";

/** Verbs of single SQLite databases, which other programs may have open. */

const label = (about = "consistency of the image") =>
  oneOf(["transaction-consistent", "crash-consistent", "torn-possible"], about);
const Process = object({ ...pick(Holder, "pid", "command") });

export const TableRows = object({
  name: text(),
  rows: orNull(number("null if the table's key needs a collation that only its own program has")),
});
export type TableRows = Of<typeof TableRows>;

export const DatabaseStatistics = object(
  {
    tables: rows(TableRows, "tables that store rows, by name"),
    schema_sha256: text("hash of the schema's SQL statements"),
    user_version: number(),
    application_id: number(),
  },
  "summary of a database's content",
);
export type DatabaseStatistics = Of<typeof DatabaseStatistics>;

export const DatabaseProof = object(
  {
    ...NamedPath.entries,
    bytes: number(),
    page_size: orNull(number("null if the file was not opened")),
    pages: orNull(number()),
    sha256: text("hash of the file, without the page at 1 GiB that SQLite locks and never writes"),
    check: orNull(
      oneOf(
        ["quick_check", "integrity_check"],
        "SQLite's check that was run; null if the database needs other files beside its own",
      ),
    ),
    problems: rows(text(), "problems that SQLite reports; the database was saved with them"),
    statistics: orNull(DatabaseStatistics),
    label: orNull(text("label from the save point; null if it has none")),
    duration_ms: number(),
  },
  "a SQLite database, read back and checked",
);
export type DatabaseProof = Of<typeof DatabaseProof>;

export const DatabaseInfo = object({
  ...NamedPath.entries,
  bytes: number(),
  page_size: number(),
  pages: orNull(number("null if the header does not tell")),
  journal_mode: oneOf(["wal", "rollback"]),
  wal_bytes: number("size of the write-ahead log"),
  change_counter: number(),
  user_version: number(),
  application_id: number(),
  written_by: number("version of SQLite that last wrote the file, for example 3051003 for 3.51.3"),
  holders: rows(Process, "processes that have the database open, including this one"),
  locked: flag("true: a program without a log is in a transaction that writes"),
  damaged: flag("true: the file is shorter than its header says; other damage is not looked for"),
  label: label("consistency that a capture would have by the journal mode and the place, if it finds no damage"),
  reason: orNull(text("why a capture would only be a plain copy; null if it would not")),
});
export type DatabaseInfo = Of<typeof DatabaseInfo>;
export const DatabaseList = object({
  databases: rows(DatabaseInfo),
  unread: rows(object({ ...NamedPath.entries, detail: text() }), "paths that could not be read"),
});
export type DatabaseList = Of<typeof DatabaseList>;

const integrityCheck = () => opt(flag("run SQLite's integrity_check on the image, which takes as long as reading it"));
export const CaptureDatabaseOptions = object({
  ...CallOptions.entries,
  to: named(place("the file to write; it appears under its name once it is complete and durable"), "--to <file>"),
  checkpoint: opt(flag("default true; false: do not write to the database or its log, and use SQLite's backup API"), {
    flags: "--no-checkpoint",
    text: "do not write to the database or its log, and use SQLite's backup API",
    value: false,
  }),
  overwrite: opt(flag("replace an existing file")),
  integrityCheck: integrityCheck(),
});
export type CaptureDatabaseOptions = Of<typeof CaptureDatabaseOptions>;
export const CaptureDatabaseResult = object({
  path: text("path of the image"),
  label: label(),
  method: oneOf(
    ["pinned", "backup", "copy"],
    "`pinned`: read under a lock that kept the file unchanged; `backup`: with SQLite's backup API; `copy`: a plain copy",
  ),
  reason: orNull(text("why it is only a plain copy, or a doubt about the image")),
  bytes: number(),
  page_size: orNull(number("null if the image has no SQLite header")),
  pages: orNull(number()),
  sha256: text("hash of the image, without the page at 1 GiB that SQLite locks and never writes"),
  held_ms: number("how long the lock was held"),
  wal_bytes_before: number(),
  wal_bytes_after: number(),
  statistics: orNull(DatabaseStatistics),
  problems: orNull(rows(text(), "problems that SQLite reports in the image; null if it was not checked")),
  sidecars: rows(oneOf(["-wal", "-shm", "-journal"]), "suffixes of the files beside the image that belong to it"),
  duration_ms: number(),
});
export type CaptureDatabaseResult = Of<typeof CaptureDatabaseResult>;

export const RestoreDatabaseOptions = object({
  ...CallOptions.entries,
  to: named(place("the database to replace or create"), "--to <database>"),
  throughSqlite: opt(
    flag("write into the existing database through SQLite, so that processes that have it open see the new content"),
  ),
  integrityCheck: integrityCheck(),
  expected: opt(
    object(
      { sha256: opt(text()), statistics: opt(DatabaseStatistics) },
      "result of the capture; an image that differs from it is `damaged`",
    ),
  ),
});
export type RestoreDatabaseOptions = Of<typeof RestoreDatabaseOptions>;
export const RestoreDatabaseResult = object({
  path: text("path of the database"),
  kept: orNull(
    text("the folder beside the database that keeps the old database and its sidecars; null if there was none"),
  ),
  through_sqlite: flag(),
  read_again: orNull(flag("true if it was read again through SQLite and is equal; null without `through_sqlite`")),
  recovered: flag("true: the WAL or journal beside the image was applied"),
  bytes: number(),
  page_size: number(),
  pages: number(),
  sha256: text("hash of the written database, read again"),
  statistics: DatabaseStatistics,
  duration_ms: number(),
});
export type RestoreDatabaseResult = Of<typeof RestoreDatabaseResult>;
