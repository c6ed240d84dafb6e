import { DiffDatabaseOptions, DiffDatabaseResult } from "../../contract/looking.ts";
import { opt, orNull } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { operand, PathInput } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const diffDatabase = workspaceVerb({
  about:
    "Compares the tables and rows of a SQLite database in two states, by default the second of them the current folder.",
  takes: [arg("path", PathInput), arg("a", operand()), arg("b", opt(orNull(operand())))],
  options: DiffDatabaseOptions,
  output: DiffDatabaseResult,
  errors: ["not_found", "ambiguous", "damaged", "io"],
  command: "diff --sql",
  looks: true,
  opensPaths: true,
  run: async (hand, path, a, b, options) =>
    (await import("./diff-database.run.ts")).diffDatabase(hand, path, [a, b ?? null], options),
});
