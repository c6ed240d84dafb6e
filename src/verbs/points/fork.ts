import { target } from "../../contract/words.ts";
import { ForkOptions, ForkResult } from "../../contract/points.ts";
import { place } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const fork = workspaceVerb({
  about: "Starts a new workspace from a save point, in an absent or empty folder.",
  takes: [arg("target", target()), arg("path", place("the new folder, absolute"))],
  options: ForkOptions,
  output: ForkResult,
  errors: ["already_exists", "refused"],
  command: "fork",
  by: "operators",
  agents: ["name"],
  seals: true,
  makesFolder: true,
  run: async ({ workspace, parts }, point, path, options) =>
    (await import("../../operations/directories/fork.ts")).fork(workspace, { point, path }, { ...options, parts }),
});
