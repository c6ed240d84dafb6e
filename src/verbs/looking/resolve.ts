import { list, rows, text } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { CallOptions, pointId, SavePoint, target, WorkspaceCallOptions } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const resolve = workspaceVerb({
  about: "Returns the save point that a target names.",
  takes: [arg("target", target())],
  options: WorkspaceCallOptions,
  output: SavePoint,
  errors: ["not_found", "ambiguous", "invalid_id"],
  by: "writers",
  looks: true,
  agents: [],
  seals: true,
  run: async ({ workspace }, point) =>
    (await import("../../look/public-point.ts")).publicPoint(workspace.resolve(point)),
});

export const shortIds = workspaceVerb({
  about: "Returns the shortest unique prefix of each id among all points of the control directory, at least 8 digits.",
  takes: [arg("ids", list(pointId()))],
  options: CallOptions,
  output: rows(text()),
  by: "writers",
  looks: true,
  agents: [],
  needs: "control",
  run: async (...given) => (await import("../../look/public-point.ts")).shortIds(...given),
});
