import { opt } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { ListedEntry, PathInput, target, WorkspaceCallOptions } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const walk = workspaceVerb({
  about: "Lists everything below a path, each folder before its entries.",
  takes: [arg("target", target()), arg("path", opt(PathInput))],
  options: WorkspaceCallOptions,
  output: ListedEntry,
  how: "stream",
  errors: ["not_found", "ambiguous", "damaged"],
  by: "writers",
  looks: true,
  withoutFolder: true,
  agents: [],
  run: async ({ workspace }, target, path, options) =>
    (await import("../../look/show.ts")).walk(workspace, target, path ?? "", options),
});
