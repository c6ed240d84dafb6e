import { ReindexContextOptions, ReindexContextResult, contextErrors, store } from "../../contract/context.ts";
import { libraryVerb } from "../kinds/define.ts";

export const reindexContext = libraryVerb({
  about: "Updates the index of a context store from its files.",
  takes: [store()],
  options: ReindexContextOptions,
  output: ReindexContextResult,
  errors: contextErrors,
  command: "context reindex",
  run: async (_hand, store, options) => (await import("../../keep/context/stores.ts")).reindexContext(store, options),
});
