import { ShowResult } from "../../contract/looking.ts";
import { object, opt } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { contentData, PathInput, target, WorkspaceCallOptions } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const show = workspaceVerb({
  about: "Lists a save point's entries at a path, by default at its root.",
  takes: [arg("target", target()), arg("path", opt(PathInput))],
  options: WorkspaceCallOptions,
  output: ShowResult,
  errors: ["not_found", "ambiguous", "damaged"],
  command: { show: ShowResult, "show POINT:FILE": object({ ...ShowResult.entries, ...contentData }) },
  by: "writers",
  looks: true,
  agents: [],
  seals: true,
  reads: true,
  run: async ({ workspace }, target, path, options) =>
    (await import("../../operations/show.ts")).show(workspace, target, path ?? "", options),
});
