import { RestoreDatabaseOptions, RestoreDatabaseResult } from "../../contract/databases.ts";
import { place } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { libraryVerb } from "../kinds/define.ts";

export const restoreDatabase = libraryVerb({
  about: "Checks an image with SQLite and replaces a database with it. Keeps the old database beside it.",
  takes: [arg("image", place())],
  options: RestoreDatabaseOptions,
  output: RestoreDatabaseResult,
  errors: ["not_found", "damaged", "refused", "busy", "conflict"],
  command: "database restore",
  run: async (_hand, image, options) =>
    (await import("../../capture/sqlite/databases.ts")).restoreDatabase(image, options),
});
