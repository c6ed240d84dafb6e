import { DiffTextOptions, DiffTextResult } from "../../contract/looking.ts";
import { opt, orNull } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { PathInput, target } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const diffText = workspaceVerb({
  about: "Compares the lines of a file in two save points, or in a save point and the current folder.",
  takes: [arg("path", PathInput), arg("a", target()), arg("b", opt(orNull(target())))],
  options: DiffTextOptions,
  output: DiffTextResult,
  errors: ["not_found", "ambiguous", "damaged", "conflict"],
  looks: true,
  agents: ["context", "ignoreWhitespace"],
  opensPaths: ({ b }) => (b ?? null) === null,
  givesContent: true,
  seals: true,
  run: async ({ workspace }, path, a, b, options) =>
    (await import("./diff-text.run.ts")).diffText(workspace, path, [a, b ?? null], options),
});
