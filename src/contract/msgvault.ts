import { number, object, type Of, oneOf, opt, orNull, text } from "./schema.ts";
import { CallOptions } from "./words.ts";

/** Verbs of msgvault repositories, which are only read. */

export const ImportMsgvaultOptions = object({
  ...CallOptions.entries,
  snapshot: opt(text("id of the snapshot, or its beginning; default: the newest one")),
});
export type ImportMsgvaultOptions = Of<typeof ImportMsgvaultOptions>;
export const ImportMsgvaultResult = object({
  path: text("the new folder, absolute"),
  repository_id: text(),
  snapshot_id: text(),
  created_at: text(),
  tag: text("empty if the snapshot has none"),
  program_version: text("version of the program that wrote the snapshot"),
  files: number("without the database"),
  bytes: number("including the database"),
  database: orNull(
    object({
      pages: number(),
      page_size: number(),
      statistics: oneOf(
        ["equal", "not_compared"],
        "`not_compared`: another program than msgvault counted; SQLite checked the database all the same",
      ),
    }),
  ),
  duration_ms: number(),
});
export type ImportMsgvaultResult = Of<typeof ImportMsgvaultResult>;
