import { tagEdit } from "../../contract/points.ts";
import { object, strict } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { pointData, SavePoint, target, WorkspaceCallOptions } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const tag = workspaceVerb({
  about: "Adds and removes tags of a save point.",
  takes: [arg("target", target()), arg("edit", strict(tagEdit))],
  options: WorkspaceCallOptions,
  output: SavePoint,
  errors: ["not_found", "ambiguous"],
  command: { tag: object(pointData) },
  event: (point) => ({ type: "tag", data: point }),
  run: async ({ workspace }, target, edit, options) =>
    (await import("../../change/marks.ts")).tag(workspace, target, { edit, options }),
});
