import { RelocateOptions, RelocateResult } from "../../contract/care.ts";
import { place } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { libraryVerb } from "../kinds/define.ts";

export const relocate = libraryVerb({
  about:
    "Records that a folder was moved. With `controlDirectory` it records the control directory's new path too; with two equal paths only that.",
  takes: [arg("oldPath", place()), arg("newPath", place())],
  options: RelocateOptions,
  output: RelocateResult,
  errors: ["not_found", "conflict"],
  command: "relocate",
  movesFolder: true,
  run: async ({ parts }, from, to, options) =>
    (await import("../../workspace/care/relocate.ts")).relocate(parts, { from, to, options }),
});
