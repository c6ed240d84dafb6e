import { flag, number, object, type Of, oneOf, opt, orNull, rows, text } from "./schema.ts";
import { NamedPath } from "./words.ts";

/** Verbs of single SQLite databases, which other programs may have open. */

export const label = (about = "consistency of the image") =>
  oneOf(["transaction-consistent", "crash-consistent", "torn-possible"], about);

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

export const integrityCheck = () =>
  opt(flag("run SQLite's integrity_check on the image, which takes as long as reading it"), "--deep");
