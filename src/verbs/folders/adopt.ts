import { AdoptOptions } from "../../contract/care.ts";
import { client } from "../../contract/index.ts";
import { place } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { libraryVerb } from "../kinds/define.ts";

export const adopt = libraryVerb({
  about: "Makes a folder the workspace `main`, without moving any file.",
  takes: [arg("path", place())],
  options: AdoptOptions,
  output: client,
  errors: ["already_exists", "refused"],
  unserved: "`register` keeps a folder",
  run: async (hand, path, options) => (await import("../../operations/set-up.ts")).adopt(hand, path, options),
});
