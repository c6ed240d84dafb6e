import { LookOptions, OTHER_STATE } from "../../contract/looking.ts";
import { count, list, number, object, type Of, oneOf, opt, orNull, rows, text, texts } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { NamedPath, operand, PathInput, pointId } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

const Row = orNull(texts());
export const DiffDatabaseResult = object({
  ...NamedPath.entries,
  from: pointId(OTHER_STATE),
  to: orNull(pointId(`${OTHER_STATE}; null: the current folder`)),
  schema: rows(
    object({
      type: oneOf(["table", "index", "view", "trigger"]),
      name: text(),
      sql_before: orNull(text()),
      sql_after: orNull(text()),
    }),
    "definitions that differ",
  ),
  tables: rows(
    object({
      name: text(),
      key: list(text(), "the key columns that identify a row; `rowid` if the table has no key"),
      added: number(),
      removed: number(),
      changed: number(),
      rows: rows(object({ before: Row, after: Row }), "the first rows of each kind; values by column, as SQL literals"),
      problem: opt(text("why the rows were not compared")),
    }),
    "tables of both databases whose rows differ",
  ),
});
export type DiffDatabaseResult = Of<typeof DiffDatabaseResult>;
export const DiffDatabaseOptions = object({
  ...LookOptions.entries,
  limit: opt(count("list at most this many rows of each kind and table; default 10; all are counted"), {
    text: "rows shown of each kind and table (default 10)",
  }),
});
export type DiffDatabaseOptions = Of<typeof DiffDatabaseOptions>;

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
