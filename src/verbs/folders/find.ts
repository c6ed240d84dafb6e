import { orNull, place, text } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { CallOptions } from "../../contract/words.ts";
import { libraryVerb } from "../kinds/define.ts";

export const find = libraryVerb({
  about: "Returns the nearest workspace at or above a path, or null.",
  takes: [arg("path", place())],
  options: CallOptions,
  output: orNull(text()),
  run: async (_hand, path) =>
    (await import("../../workspace/place/find-workspace.ts")).findWorkspace(path)?.folder.toString("utf8") ?? null,
});
