import { DatabaseStatistics, integrityCheck } from "../../contract/databases.ts";
import { flag, named, number, object, type Of, opt, orNull, place, text } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { CallOptions } from "../../contract/words.ts";
import { libraryVerb } from "../kinds/define.ts";

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

export const restoreDatabase = libraryVerb({
  about: "Checks an image with SQLite and replaces a database with it. Keeps the old database beside it.",
  takes: [arg("image", place())],
  options: RestoreDatabaseOptions,
  output: RestoreDatabaseResult,
  errors: ["not_found", "damaged", "refused", "busy", "conflict"],
  command: "database restore",
  run: async (_hand, image, options) =>
    (await import("../../capture/sqlite/databases.ts")).restoreDatabase(image, options),
});
