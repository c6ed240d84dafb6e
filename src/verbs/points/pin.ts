import { object } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { pointData, SavePoint, target, WorkspaceCallOptions } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

const marking = {
  takes: [arg("target", target())],
  options: WorkspaceCallOptions,
  output: SavePoint,
  errors: ["not_found", "ambiguous"],
} as const;

export const pin = workspaceVerb({
  about: "Protects a save point from every cleanup.",
  ...marking,
  command: { pin: object(pointData) },
  event: (point) => ({ type: "pin", data: point }),
  run: async ({ workspace }, target, options) =>
    (await import("../../change/marks.ts")).pin(workspace, target, options),
});

export const unpin = workspaceVerb({
  about: "Removes a save point's protection from cleanups.",
  ...marking,
  command: { unpin: object(pointData) },
  event: (point) => ({ type: "unpin", data: point }),
  run: async ({ workspace }, target, options) =>
    (await import("../../change/marks.ts")).unpin(workspace, target, options),
});
