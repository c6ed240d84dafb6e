import { ContextInfo, InitContextOptions } from "../../contract/context.ts";
import { place } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { libraryVerb } from "../kinds/define.ts";

export const initContext = libraryVerb({
  about: "Makes a context store of a folder, which is made too where it is absent.",
  takes: [arg("folder", place())],
  options: InitContextOptions,
  output: ContextInfo,
  errors: ["already_exists", "usage", "unsupported"],
  command: "context init",
  run: async (_hand, folder, options) =>
    (await import("../../operations/context/stores.ts")).initContext(folder, options),
});
