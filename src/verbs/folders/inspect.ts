import { anything, number, object, type Of, opt, orNull, place, text } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { CallOptions } from "../../contract/words.ts";
import { libraryVerb } from "../kinds/define.ts";

export const InspectOptions = object({
  ...CallOptions.entries,
  passwordFile: opt(place("file with the password, for a store outside a control directory"), "--password-file <file>"),
});
export type InspectOptions = Of<typeof InspectOptions>;
export const InspectResult = object({
  path: text(),
  format: text("for example `save-point-descriptor`, `stat-cache`, `restic-index`"),
  version: orNull(number()),
  bytes: number(),
  content: anything("the decoded file without secrets; long lists are cut at 1000 items, with a note"),
});
export type InspectResult = Of<typeof InspectResult>;

export const inspect = libraryVerb({
  about: "Decodes any file that Cairn writes.",
  takes: [arg("file", place())],
  options: InspectOptions,
  output: InspectResult,
  errors: ["unsupported"],
  command: "inspect",
  run: async (_hand, file, options) => (await import("./inspect.run.ts")).inspect(file, options),
});
