import { flag, number, object, type Of, opt, place, text } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { allow, CallOptions, SavePoint, WorkspaceRef } from "../../contract/words.ts";
import { libraryVerb } from "../kinds/define.ts";

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

export const importDirectory = libraryVerb({
  about:
    "Creates a workspace from an export directory, in an absent or empty folder. Checks the whole directory first.",
  takes: [arg("from", place("the directory")), arg("folder", place("the new folder, absolute"))],
  options: ImportDirectoryOptions,
  output: ImportDirectoryResult,
  errors: ["not_found", "damaged", "newer_version", "already_exists", "refused"],
  command: { import: ImportDirectoryResult, clone: ImportDirectoryResult },
  run: async (...given) => (await import("./import-directory.run.ts")).importDirectory(...given),
});
