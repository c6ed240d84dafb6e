import { flag, opt, orNull, text } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { CallOptions, SavePoint } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const latestSavePoint = workspaceVerb({
  about: "Returns the newest save point, or null.",
  takes: [arg("workspaceName", opt(text()))],
  options: CallOptions,
  output: orNull(SavePoint),
  by: "writers",
  looks: true,
  withoutFolder: true,
  agents: [],
  run: async ({ workspace }) => {
    const latest = workspace.points.latest();
    return latest === null ? null : (await import("../../look/public-point.ts")).publicPoint(latest);
  },
});

export const hasSavePoints = workspaceVerb({
  about: "Returns true if the workspace has a save point.",
  takes: [arg("workspaceName", opt(text()))],
  options: CallOptions,
  output: flag(),
  by: "writers",
  looks: true,
  agents: [],
  run: ({ workspace }) => workspace.points.latest() !== null,
});
