import { DatabaseStatistics, integrityCheck, label } from "../../contract/databases.ts";
import { flag, named, number, object, type Of, oneOf, opt, orNull, place, rows, text } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { CallOptions } from "../../contract/words.ts";
import { libraryVerb } from "../kinds/define.ts";

export const CaptureDatabaseOptions = object({
  ...CallOptions.entries,
  to: named(place("the file to write; it appears under its name once it is complete and durable"), "--to <file>"),
  checkpoint: opt(flag("default true; false: do not write to the database or its log, and use SQLite's backup API")),
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

export const captureDatabase = libraryVerb({
  about: "Writes a consistent image of a SQLite database to a file while other processes keep using the database.",
  takes: [arg("path", place())],
  options: CaptureDatabaseOptions,
  output: CaptureDatabaseResult,
  errors: ["not_found", "already_exists"],
  command: "database capture",
  run: async (_hand, path, options) =>
    (await import("../../capture/sqlite/databases.ts")).captureDatabase(path, options),
});
