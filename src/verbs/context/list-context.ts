import { ListContextOptions, ListContextResult, at, contextErrors, store } from "../../contract/context.ts";
import { libraryVerb } from "../kinds/define.ts";

export const listContext = libraryVerb({
  about: "Lists the entries of a context store at a URI, with their abstracts.",
  takes: [store(), at()],
  options: ListContextOptions,
  output: ListContextResult,
  errors: contextErrors,
  command: "context ls",
  run: async (_hand, store, uri, options) =>
    (await import("../../keep/context/stores.ts")).listContext(store, uri, options),
});
