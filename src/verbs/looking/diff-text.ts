import { DiffTextOptions, DiffTextResult } from "../../contract/looking.ts";
import { opt, orNull } from "../../contract/schema.ts";
import { isFolderOperand, NOW } from "../../contract/operand.ts";
import { arg } from "../../contract/verb.ts";
import { operand, PathInput } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

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
