import { ListContextOptions, ListContextResult, at, contextErrors, store } from "../../contract/context.ts";
import { libraryVerb } from "../kinds/define.ts";

export const listContext = libraryVerb({
  about: "Lists what lies at a place of a context store, with its abstracts.",
  takes: [store(), at()],
  options: ListContextOptions,
  output: ListContextResult,
  errors: contextErrors,
  command: "context ls",
  run: async (_hand, store, uri, options) =>
    (await import("../../operations/context/stores.ts")).listContext(store, uri, options),
});
