import { ContextInfo, InitContextOptions } from "../../contract/context.ts";
import { place } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { libraryVerb } from "../kinds/define.ts";

export const initContext = libraryVerb({
  about: "Creates a context store in a folder. Creates the folder if it does not exist.",
  takes: [arg("folder", place())],
  options: InitContextOptions,
  output: ContextInfo,
  errors: ["already_exists", "usage", "unsupported"],
  command: "context init",
  run: async (_hand, folder, options) => (await import("../../keep/context/stores.ts")).initContext(folder, options),
});
