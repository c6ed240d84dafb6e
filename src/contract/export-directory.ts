import { flag, number, object, type Of, opt, text } from "./schema.ts";
import { allow, CallOptions, SavePoint, WorkspaceCallOptions, WorkspaceRef } from "./words.ts";

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

export const ImportDirectoryOptions = object({
  ...CallOptions.entries,
  isTar: opt(flag("the source is a tar file of an export directory")),
  isClone: opt(flag("create an independent workspace, without a record of its origin")),
  name: opt(
    text("name of the new workspace; default: the exported workspace's name; of a clone: the new folder's name"),
    "--name <name>",
  ),
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
