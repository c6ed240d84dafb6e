import { RelocateOptions, RelocateResult } from "../../contract/care.ts";
import { place } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { libraryVerb } from "../kinds/define.ts";

export const relocate = libraryVerb({
  about:
    "Tells that a folder was moved; with `controlDirectory` that the control directory was, or only that where both paths are the same.",
  takes: [arg("oldPath", place()), arg("newPath", place())],
  options: RelocateOptions,
  output: RelocateResult,
  errors: ["not_found", "conflict"],
  command: "relocate",
  movesFolder: true,
  run: async ({ parts }, from, to, options) =>
    (await import("../../workspace/care/relocate.ts")).relocate(parts, { from, to, options }),
});
