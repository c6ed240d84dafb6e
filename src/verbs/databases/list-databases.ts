import { DatabaseList } from "../../contract/databases.ts";
import { place } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { CallOptions } from "../../contract/words.ts";
import { libraryVerb } from "../kinds/define.ts";

export const listDatabases = libraryVerb({
  about:
    "Lists the SQLite databases at or below a path, and how consistent a capture of each would be. Opens none of them with SQLite.",
  takes: [arg("path", place())],
  options: CallOptions,
  output: DatabaseList,
  errors: ["not_found"],
  command: "database list",
  run: async (_hand, path, options) => (await import("../../capture/sqlite/databases.ts")).listDatabases(path, options),
});
