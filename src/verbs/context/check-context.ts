import { CheckContextOptions, CheckContextResult, contextErrors, store } from "../../contract/context.ts";
import { libraryVerb } from "../kinds/define.ts";

export const checkContext = libraryVerb({
  about: "Compares a context store's files with its index, and lists missing and outdated records.",
  takes: [store()],
  options: CheckContextOptions,
  output: CheckContextResult,
  errors: contextErrors,
  command: "context check",
  run: async (_hand, store, options) => (await import("../../keep/context/stores.ts")).checkContext(store, options),
});
