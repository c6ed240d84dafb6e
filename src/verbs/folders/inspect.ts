import { InspectOptions, InspectResult } from "../../contract/care.ts";
import { place } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { libraryVerb } from "../kinds/define.ts";

export const inspect = libraryVerb({
  about: "Decodes any file that Cairn writes.",
  takes: [arg("file", place())],
  options: InspectOptions,
  output: InspectResult,
  errors: ["unsupported"],
  command: "inspect",
  run: async (_hand, file, options) => (await import("./inspect.run.ts")).inspect(file, options),
});
