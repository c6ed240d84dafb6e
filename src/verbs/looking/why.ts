import { WhyOptions, WhyResult } from "../../contract/looking.ts";
import { arg } from "../../contract/verb.ts";
import { PathInput } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const why = workspaceVerb({
  about: "Lists the points that changed a path, and each change.",
  takes: [arg("path", PathInput)],
  options: WhyOptions,
  output: WhyResult,
  command: "why",
  by: "writers",
  looks: true,
  agents: ["limit"],
  seals: true,
  reads: true,
  run: async ({ workspace }, path, options) =>
    (await import("../../operations/history.ts")).why(workspace, path, options),
});
