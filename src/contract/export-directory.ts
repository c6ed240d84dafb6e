import { flag, number, object, type Of, opt, text } from "./schema.ts";
import { allow, WorkspaceCallOptions } from "./words.ts";

/** Verbs of export directories: states that are moved by copying a directory. */

export const ExportPointOptions = object({
  ...WorkspaceCallOptions.entries,
  asTar: opt(flag("write one tar file instead of a directory; the file must not exist")),
  allow: allow("override a guard"),
});
export type ExportPointOptions = Of<typeof ExportPointOptions>;
export const ExportPointResult = object({
  path: text("the directory or tar file, absolute"),
  save_point_id: text(),
  state_digest: text(),
  files: number(),
  entries: number("directories, links and other entries without content"),
  bytes: number(),
  duration_ms: number(),
});
export type ExportPointResult = Of<typeof ExportPointResult>;
