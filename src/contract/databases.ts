import { flag, number, object, type Of, oneOf, opt, orNull, pick, place, rows, text } from "./schema.ts";
import { CallOptions, Holder, NamedPath } from "./words.ts";

/** Verbs of single SQLite databases, which other programs may have open. */

const label = () => oneOf(["transaction-consistent", "crash-consistent", "torn-possible"], "what can be relied on");
const Process = object({ ...pick(Holder, "pid", "command") });

export const DatabaseStatistics = object(
  {
    tables: rows(
      object({ name: text(), rows: orNull(number("null where its key needs a collation of its own program")) }),
      "those that have rows of their own, by name",
    ),
    schema_sha256: text("of the statements that make the schema"),
    user_version: number(),
    application_id: number(),
  },
  "what a database holds",
);
export type DatabaseStatistics = Of<typeof DatabaseStatistics>;

export const DatabaseProof = object(
  {
    ...NamedPath.entries,
    bytes: number(),
    page_size: orNull(number("null where it was not opened")),
    pages: orNull(number()),
    sha256: text("of the file, without the page at 1 GiB that SQLite locks and never writes"),
    check: orNull(oneOf(["quick_check", "integrity_check"], "SQLite's; null where more than its file belongs to it")),
    problems: rows(text(), "what SQLite finds wrong with it, which is as it was saved"),
    statistics: orNull(DatabaseStatistics),
    label: orNull(text("of the save point: what can be relied on; null where none was given")),
    duration_ms: number(),
  },
  "a SQLite database as it was read back",
);
export type DatabaseProof = Of<typeof DatabaseProof>;

export const DatabaseInfo = object({
  ...NamedPath.entries,
  bytes: number(),
  page_size: number(),
  pages: orNull(number("null where the header does not say")),
  journal_mode: oneOf(["wal", "rollback"]),
  wal_bytes: number("of its write-ahead log"),
  change_counter: number(),
  user_version: number(),
  application_id: number(),
  written_by: number("version of the SQLite that wrote last, as 3051003 for 3.51.3"),
  holders: rows(Process, "processes that have it open, this one too"),
  label: label(),
  reason: orNull(text("why a capture would be a plain copy")),
});
export type DatabaseInfo = Of<typeof DatabaseInfo>;
export const DatabaseList = object({
  databases: rows(DatabaseInfo),
  unread: rows(object({ ...NamedPath.entries, detail: text() }), "what could not be looked at"),
});
export type DatabaseList = Of<typeof DatabaseList>;

const integrityCheck = () => opt(flag("have SQLite check all of the image, which takes as long as reading it"));
export const CaptureDatabaseOptions = object({
  ...CallOptions.entries,
  to: place("the file to write; it has its name once it is whole and durable"),
  checkpoint: opt(flag("default true; false: write nothing to the database, its log neither, and use SQLite's backup")),
  overwrite: opt(flag("replace the file if it is there")),
  integrityCheck: integrityCheck(),
});
export type CaptureDatabaseOptions = Of<typeof CaptureDatabaseOptions>;
export const CaptureDatabaseResult = object({
  path: text("of the image"),
  label: label(),
  method: oneOf(
    ["pinned", "backup", "copy"],
    "`pinned`: read while a lock kept the file as it was; `backup`: by SQLite's backup; `copy`: a plain copy",
  ),
  reason: orNull(text("why it is a plain copy")),
  bytes: number(),
  page_size: orNull(number("null where it does not begin as a database does")),
  pages: orNull(number()),
  sha256: text("of the image, without the page at 1 GiB that SQLite locks and never writes"),
  held_ms: number("how long a lock was held"),
  wal_bytes_before: number(),
  wal_bytes_after: number(),
  statistics: orNull(DatabaseStatistics),
  problems: orNull(rows(text(), "what SQLite finds wrong with the image; null when it was not checked")),
  sidecars: rows(oneOf(["-wal", "-shm", "-journal"]), "files beside the image that belong to it, by their endings"),
  duration_ms: number(),
});
export type CaptureDatabaseResult = Of<typeof CaptureDatabaseResult>;

export const RestoreDatabaseOptions = object({
  ...CallOptions.entries,
  to: place("the database to replace or to make"),
  throughSqlite: opt(flag("write into the database that is there, so that whoever has it open sees the content")),
  integrityCheck: integrityCheck(),
  expected: opt(
    object(
      { sha256: opt(text()), statistics: opt(DatabaseStatistics) },
      "what the capture answered; an image that differs is `damaged`",
    ),
  ),
});
export type RestoreDatabaseOptions = Of<typeof RestoreDatabaseOptions>;
export const RestoreDatabaseResult = object({
  path: text("of the database"),
  kept: orNull(text("the folder beside it with the old database and its sidecars; null where there was none")),
  through_sqlite: flag(),
  recovered: flag("true: the log or journal beside the image was applied"),
  bytes: number(),
  page_size: number(),
  pages: number(),
  sha256: text("of what was written, read again"),
  statistics: DatabaseStatistics,
  duration_ms: number(),
});
export type RestoreDatabaseResult = Of<typeof RestoreDatabaseResult>;
