import { ReindexContextOptions, ReindexContextResult, contextErrors, store } from "../../contract/context.ts";
import { libraryVerb } from "../kinds/define.ts";

export const reindexContext = libraryVerb({
  about: "Makes the index of a context store what its files are.",
  takes: [store()],
  options: ReindexContextOptions,
  output: ReindexContextResult,
  errors: contextErrors,
  command: "context reindex",
  run: async (_hand, store, options) =>
    (await import("../../operations/context/stores.ts")).reindexContext(store, options),
});
