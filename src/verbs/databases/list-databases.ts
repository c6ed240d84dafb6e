import { DatabaseList } from "../../contract/databases.ts";
import { place } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { CallOptions } from "../../contract/words.ts";
import { libraryVerb } from "../kinds/define.ts";

export const listDatabases = libraryVerb({
  about: "Lists the SQLite databases at or below a path, and what a capture of each would be; SQLite opens none.",
  takes: [arg("path", place())],
  options: CallOptions,
  output: DatabaseList,
  errors: ["not_found"],
  command: "database list",
  run: async (_hand, path, options) => (await import("../../capture/sqlite/databases.ts")).listDatabases(path, options),
});
