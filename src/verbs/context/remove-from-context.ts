import { RemoveFromContextResult, at, contextErrors, store } from "../../contract/context.ts";
import { CallOptions } from "../../contract/words.ts";
import { libraryVerb } from "../kinds/define.ts";

export const removeFromContext = libraryVerb({
  about: "Removes a file or directory from a context store, with everything below it.",
  takes: [store(), at()],
  options: CallOptions,
  output: RemoveFromContextResult,
  errors: contextErrors,
  command: "context rm",
  run: async (_hand, store, uri, options) =>
    (await import("../../keep/context/stores.ts")).removeFromContext(store, uri, options),
});
