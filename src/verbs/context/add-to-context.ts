import { AddToContextOptions, AddToContextResult, at, contextErrors, store } from "../../contract/context.ts";
import { place } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { libraryVerb } from "../kinds/define.ts";

export const addToContext = libraryVerb({
  about: "Adds a file, or a folder with everything in it, to a context store, and indexes it.",
  takes: [store(), at(), arg("from", place("a file or folder"))],
  options: AddToContextOptions,
  output: AddToContextResult,
  errors: [...contextErrors, "already_exists"],
  command: "context add",
  run: async (_hand, store, uri, from, options) =>
    (await import("../../keep/context/stores.ts")).addToContext(store, uri, from, options),
});
