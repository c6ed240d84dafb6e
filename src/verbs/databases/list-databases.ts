import { label } from "../../contract/databases.ts";
import { flag, number, object, type Of, oneOf, orNull, pick, place, rows, text } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { CallOptions, Holder, NamedPath } from "../../contract/words.ts";
import { libraryVerb } from "../kinds/define.ts";

const Process = object({ ...pick(Holder, "pid", "command") });
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

export const listDatabases = libraryVerb({
  about:
    "Lists the SQLite databases at or below a path, and how consistent a capture of each would be. Opens none of them with SQLite.",
  takes: [arg("path", place())],
  options: CallOptions,
  output: DatabaseList,
  errors: ["not_found"],
  command: "database list",
  run: async (_hand, path, options) => (await import("../../capture/sqlite/databases.ts")).listDatabases(path, options),
});
