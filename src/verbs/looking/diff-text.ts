import { LookOptions, OTHER_STATE } from "../../contract/looking.ts";
import { isFolderOperand, NOW } from "../../contract/operand.ts";
import { about, count, flag, number, object, type Of, oneOf, opt, orNull, rows, text } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { NamedPath, operand, PathInput, pointId } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

const side = (phrase: string) =>
  orNull(
    about(object({ size: number(), sha256: opt(text("64 hex digits; absent if the file was not read")) }), phrase),
  );
export const DiffTextOptions = object({
  ...LookOptions.entries,
  context: opt(count("lines around each difference; default 3")),
  ignoreWhitespace: opt(flag("lines are equal if they differ only in white space")),
});
export type DiffTextOptions = Of<typeof DiffTextOptions>;
export const DiffTextResult = object({
  ...NamedPath.entries,
  from: pointId(OTHER_STATE),
  to: orNull(pointId(`${OTHER_STATE}; null: the current folder`)),
  kind: oneOf(
    ["same", "text", "binary", "too_different", "too_large"],
    "`too_different`: the search for the differences was given up; `too_large`: a side has more than 32 MiB",
  ),
  before: side("null: the file is not there"),
  after: side("null: the file is not there"),
  hunks: rows(
    object({
      old_start: number("first line, from 1; of a side without lines the line before"),
      old_lines: number(),
      new_start: number(),
      new_lines: number(),
      section: orNull(
        text("nearest line above that begins with a letter, `_` or `$`, at most 80 characters; null: there is none"),
      ),
      lines: rows(
        text(),
        "`+`, `-` or a space, then the line; `\\ No newline at end of file` after a last line without one",
      ),
    }),
    "as in a unified diff; empty unless `kind` is `text`",
  ),
});
export type DiffTextResult = Of<typeof DiffTextResult>;

export const diffText = workspaceVerb({
  about: "Compares the lines of a file in two states, by default the second of them the current folder.",
  takes: [arg("path", PathInput), arg("a", operand()), arg("b", opt(orNull(operand())))],
  options: DiffTextOptions,
  output: DiffTextResult,
  errors: ["not_found", "ambiguous", "damaged", "conflict"],
  looks: true,
  agents: ["context", "ignoreWhitespace"],
  opensPaths: ({ a, b }) => isFolderOperand(a as string) || isFolderOperand((b ?? NOW) as string),
  givesContent: true,
  seals: true,
  run: async (hand, path, a, b, options) =>
    (await import("./diff-text.run.ts")).diffText(hand, path, [a, b ?? null], options),
});
