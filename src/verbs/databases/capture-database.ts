import { CaptureDatabaseOptions, CaptureDatabaseResult } from "../../contract/databases.ts";
import { place } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { libraryVerb } from "../kinds/define.ts";

export const captureDatabase = libraryVerb({
  about: "Writes a consistent image of a SQLite database to a file while other processes keep using the database.",
  takes: [arg("path", place())],
  options: CaptureDatabaseOptions,
  output: CaptureDatabaseResult,
  errors: ["not_found", "already_exists"],
  command: "database capture",
  run: async (_hand, path, options) =>
    (await import("../../capture/sqlite/databases.ts")).captureDatabase(path, options),
});
