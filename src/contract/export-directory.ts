import { flag, number, object, type Of, opt, text } from "./schema.ts";
import { allow, CallOptions, SavePoint, WorkspaceCallOptions, WorkspaceRef } from "./words.ts";

/** Verbs of export directories: a state that travels by copying a directory alone. */

export const ExportPointOptions = object({
  ...WorkspaceCallOptions.entries,
  asTar: opt(flag("one tar file of the directory instead; the file is absent")),
  allow: allow("override a guard"),
});
export type ExportPointOptions = Of<typeof ExportPointOptions>;
export const ExportPointResult = object({
  path: text("the directory or tar file, absolute"),
  save_point_id: text(),
  state_digest: text(),
  files: number(),
  entries: number("directories, links and what else has no content"),
  bytes: number(),
  duration_ms: number(),
});
export type ExportPointResult = Of<typeof ExportPointResult>;

export const ImportDirectoryOptions = object({
  ...CallOptions.entries,
  isTar: opt(flag("it is a tar file of the directory")),
  isClone: opt(flag("a workspace of its own, without a word of where it came from")),
  name: opt(text("of the new workspace; default: that of the exported one, of a clone the folder's")),
  allow: allow("override a guard"),
});
export type ImportDirectoryOptions = Of<typeof ImportDirectoryOptions>;
export const ImportDirectoryResult = object({
  workspace: WorkspaceRef,
  save_point: SavePoint,
  state_digest: text(),
  files: number(),
  bytes: number(),
  duration_ms: number(),
});
export type ImportDirectoryResult = Of<typeof ImportDirectoryResult>;
