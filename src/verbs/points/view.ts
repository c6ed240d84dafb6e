import { ViewLease } from "../../contract/points.ts";
import { object, rows, text } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { CallOptions, target, WorkspaceCallOptions } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const view = workspaceVerb({
  about: "Opens a save point as a read-only folder.",
  takes: [arg("target", target())],
  options: WorkspaceCallOptions,
  output: ViewLease,
  errors: ["not_found", "ambiguous", "damaged"],
  command: { "view POINT": object({ view: ViewLease }) },
  by: "operators",
  seals: true,
  run: async ({ workspace }, target, options) =>
    (await import("../../change/fork.ts")).view(workspace, target, options),
});

export const listViews = workspaceVerb({
  about: "Lists the open views.",
  options: CallOptions,
  output: rows(ViewLease),
  command: { view: object({ views: rows(ViewLease) }) },
  by: "operators",
  looks: true,
  run: async ({ workspace }) => (await import("../../change/fork.ts")).listViews(workspace),
});

export const closeView = workspaceVerb({
  about: "Closes a view and removes its folder.",
  takes: [arg("viewId", text())],
  options: CallOptions,
  output: ViewLease,
  errors: ["not_found"],
  command: { "view --close": object({ closed: ViewLease }) },
  by: "operators",
  run: async ({ workspace }, id) => (await import("../../change/fork.ts")).closeView(workspace, id),
});
