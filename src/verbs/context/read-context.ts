import { ReadContextOptions, ReadContextResult, at, contextErrors, store } from "../../contract/context.ts";
import { libraryVerb } from "../kinds/define.ts";

export const readContext = libraryVerb({
  about: "Reads a file of a context store, or the abstract or overview of a directory.",
  takes: [store(), at()],
  options: ReadContextOptions,
  output: ReadContextResult,
  errors: contextErrors,
  command: "context cat",
  run: async (_hand, store, uri, options) =>
    (await import("../../keep/context/stores.ts")).readContext(store, uri, options),
});
