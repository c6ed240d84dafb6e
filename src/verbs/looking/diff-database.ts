import { DiffDatabaseOptions, DiffDatabaseResult } from "../../contract/looking.ts";
import { opt, orNull } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { PathInput, target } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const diffDatabase = workspaceVerb({
  about:
    "Compares the tables and rows of a SQLite database in two save points, or in a save point and the current folder.",
  takes: [arg("path", PathInput), arg("a", target()), arg("b", opt(orNull(target())))],
  options: DiffDatabaseOptions,
  output: DiffDatabaseResult,
  errors: ["not_found", "ambiguous", "damaged", "io"],
  command: "diff --sql",
  looks: true,
  opensPaths: true,
  run: async ({ workspace }, path, a, b, options) =>
    (await import("./diff-database.run.ts")).diffDatabase(workspace, path, [a, b ?? null], options),
});
