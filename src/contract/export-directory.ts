import { flag, number, object, type Of, opt, text } from "./schema.ts";
import { LookOptions } from "./looking.ts";
import { allow } from "./words.ts";

/** Verbs of export directories: states that are moved by copying a directory. */

export const ExportPointOptions = object({
  ...LookOptions.entries,
  asTar: opt(flag("write one tar file instead of a directory; the file must not exist")),
  allow: allow("override a guard"),
});
export type ExportPointOptions = Of<typeof ExportPointOptions>;
export const ExportPointResult = object({
  path: text("the directory or tar file, absolute"),
  save_point_id: text("of a backup: the save point that was backed up"),
  state_digest: text(),
  files: number(),
  entries: number("directories, links and other entries without content"),
  bytes: number(),
  duration_ms: number(),
});
export type ExportPointResult = Of<typeof ExportPointResult>;
