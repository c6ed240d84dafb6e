import { ImportDirectoryOptions, ImportDirectoryResult } from "../../contract/export-directory.ts";
import { place } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { libraryVerb } from "../kinds/define.ts";

export const importDirectory = libraryVerb({
  about:
    "Makes a workspace of an export directory, in a folder that is absent or empty. All of the directory is checked first.",
  takes: [arg("from", place("the directory")), arg("folder", place("the new folder, absolute"))],
  options: ImportDirectoryOptions,
  output: ImportDirectoryResult,
  errors: ["not_found", "damaged", "newer_version", "already_exists", "refused"],
  command: { import: ImportDirectoryResult, clone: ImportDirectoryResult },
  run: async (...given) => (await import("../../operations/directories/import.ts")).importDirectory(...given),
});
