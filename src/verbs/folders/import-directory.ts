import { ImportDirectoryOptions, ImportDirectoryResult } from "../../contract/export-directory.ts";
import { place } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { libraryVerb } from "../kinds/define.ts";

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
