import { opt, text } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const workspacePath = workspaceVerb({
  about: "Returns the absolute path of a workspace's folder.",
  takes: [arg("name", opt(text()))],
  output: text(),
  how: "at once",
  errors: ["not_found"],
  by: "operators",
  looks: true,
});
