import { flag, number, object, type Of, opt, place, text } from "./schema.ts";
import { target } from "./points.ts";
import { arg, verb } from "./verb.ts";
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
export const exportPoint = verb({
  about:
    "Writes a save point as an export directory, which is absent or empty: its content beside an envelope that is written last.",
  takes: [arg("target", target()), arg("to", place("the directory, absolute"))],
  options: ExportPointOptions,
  output: ExportPointResult,
  errors: ["already_exists", "incomplete", "refused", "no_space", "unsupported"],
});

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
export const importDirectory = verb({
  about:
    "Makes a workspace of an export directory, in a folder that is absent or empty. All of the directory is checked first.",
  takes: [arg("from", place("the directory")), arg("folder", place("the new folder, absolute"))],
  options: ImportDirectoryOptions,
  output: ImportDirectoryResult,
  errors: ["not_found", "damaged", "newer_version", "already_exists", "refused"],
});
