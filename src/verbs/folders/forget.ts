import { flag, place } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { CallOptions } from "../../contract/words.ts";
import { libraryVerb } from "../kinds/define.ts";

export const forget = libraryVerb({
  about:
    "Removes a folder's record from the registry when its points are gone for good. False: the folder had no record.",
  takes: [arg("path", place())],
  options: CallOptions,
  output: flag(),
  errors: ["conflict"],
  run: async (_hand, path, options) => (await import("../../workspace/care/release.ts")).forget(path, options),
});
