import { list, rows, text } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { CallOptions, pointId, SavePoint, target, WorkspaceCallOptions } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const resolve = workspaceVerb({
  about: "The one save point that a target means.",
  takes: [arg("target", target())],
  options: WorkspaceCallOptions,
  output: SavePoint,
  errors: ["not_found", "ambiguous", "invalid_id"],
  by: "writers",
  looks: true,
  agents: [],
  run: async ({ workspace }, point) =>
    (await import("../../operations/public-point.ts")).publicPoint(workspace.resolve(point)),
});

export const shortIds = workspaceVerb({
  about: "Shortest unique prefixes, at least 8 digits, among all points of the control directory.",
  takes: [arg("ids", list(pointId()))],
  options: CallOptions,
  output: rows(text()),
  by: "writers",
  looks: true,
  agents: [],
  needs: "control",
  run: async (...given) => (await import("../../operations/public-point.ts")).shortIds(...given),
});
