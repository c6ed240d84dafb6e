import { FindInContextOptions, FindInContextResult, contextErrors, store } from "../../contract/context.ts";
import { text } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { libraryVerb } from "../kinds/define.ts";

export const findInContext = libraryVerb({
  about: "Finds files and directories of a context store by meaning and by words.",
  takes: [store(), arg("query", text())],
  options: FindInContextOptions,
  output: FindInContextResult,
  errors: contextErrors,
  command: "context find",
  run: async (_hand, store, query, options) =>
    (await import("../../keep/context/stores.ts")).findInContext(store, query, options),
});
