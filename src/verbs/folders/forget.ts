import { flag, place } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { CallOptions } from "../../contract/words.ts";
import { libraryVerb } from "../kinds/define.ts";

export const forget = libraryVerb({
  about: "Forgets where a folder's points lay, when they are gone for good; false: it was not known.",
  takes: [arg("path", place())],
  options: CallOptions,
  output: flag(),
  errors: ["conflict"],
  run: async (_hand, path, options) => (await import("../../workspace/care/release.ts")).forget(path, options),
});
