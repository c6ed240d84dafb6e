import { FindNamesOptions, FindNamesResult } from "../../contract/looking.ts";
import { text } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const findNames = workspaceVerb({
  about: "Searches names of files and folders in all save points.",
  takes: [
    arg(
      "pattern",
      text("a part of a name, or a pattern with `*`, `?` or `[`; with a slash it is compared with whole paths"),
    ),
  ],
  options: FindNamesOptions,
  output: FindNamesResult,
  command: "find",
  by: "writers",
  looks: true,
  agents: ["ignoreCase", "limit", "all"],
  seals: true,
  run: async ({ workspace }, pattern, options) =>
    (await import("../../operations/content/find-names.ts")).findNames(workspace, pattern, options),
});
