import { InitOptions } from "../../contract/care.ts";
import { client } from "../../contract/index.ts";
import { place } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { libraryVerb } from "../kinds/define.ts";

export const init = libraryVerb({
  about: "Makes a folder a workspace, without moving any file; or makes a new self-contained workspace.",
  takes: [arg("path", place())],
  options: InitOptions,
  output: client,
  errors: ["already_exists", "refused"],
  unserved: "`register` keeps a folder",
  run: async (hand, path, options) => (await import("../../change/set-up.ts")).init(hand, path, options),
});
