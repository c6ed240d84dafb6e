import { target } from "../../contract/words.ts";
import { DiffOptions, DiffResult } from "../../contract/looking.ts";
import { opt, orNull } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const diff = workspaceVerb({
  about: "Compares two save points, or a save point with the current folder.",
  takes: [arg("a", target()), arg("b", opt(orNull(target())))],
  options: DiffOptions,
  output: DiffResult,
  errors: ["not_found", "ambiguous", "damaged"],
  command: "diff",
  by: "writers",
  looks: true,
  agents: ["paths"],
  seals: true,
  reads: true,
  run: async ({ workspace }, a, b, options) =>
    (await import("../../operations/diff.ts")).diff(workspace, a, b ?? null, options),
});
