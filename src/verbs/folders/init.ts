import { InitOptions } from "../../contract/care.ts";
import { client } from "../../contract/index.ts";
import { place } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { libraryVerb } from "../kinds/define.ts";

export const init = libraryVerb({
  about: "Creates a self-contained workspace: `<path>/main` and `<path>/.cairn`.",
  takes: [arg("path", place())],
  options: InitOptions,
  output: client,
  errors: ["already_exists"],
  unserved: "it makes a folder for a process that opens it: call it there, then `register` its `main`",
  run: async (hand, path, options) => (await import("../../operations/set-up.ts")).init(hand, path, options),
});
