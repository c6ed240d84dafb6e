import { ImportOptions } from "../../contract/points.ts";
import { place } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { SavePoint } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const importTree = workspaceVerb({
  about:
    "Makes a save point of another folder's tree, for example a snapshot made by another program. The tree itself is not changed.",
  takes: [arg("tree", place("a folder on the workspace's file system"))],
  options: ImportOptions,
  output: SavePoint,
  errors: ["not_found", "unsupported", "already_exists"],
  by: "operators",
  run: async ({ workspace }, tree, options) =>
    (await import("../../change/save.ts")).importTree(workspace, tree, options),
});
