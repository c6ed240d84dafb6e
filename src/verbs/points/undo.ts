import { restored, type Tool } from "../kinds/tool.ts";
import { RestorePlan, RestoreResult, throughSqlite, UndoOptions } from "../../contract/points.ts";
import { object } from "../../contract/schema.ts";
import { WorkspaceCallOptions } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

const tool: Tool = {
  title: "Undo the last restore",
  about: "Brings back the state before the last restore or undo.",
  takes: {},
  output: RestoreResult,
  changes: true,
  async run(client, _given, options) {
    const data = await client.undo(options);
    return { data, words: restored(data) };
  },
};

export const undo = workspaceVerb({
  about: "Undoes the last restore or undo.",
  options: UndoOptions,
  output: RestoreResult,
  errors: ["nothing_to_undo"],
  command: "undo",
  by: "writers",
  agents: [],
  opensPaths: throughSqlite,
  makesPoint: "undo",
  changesPoints: true,
  event: (undone) => ({ type: "undo", data: undone }),
  tool,
  run: async ({ workspace }, options) => (await import("../../operations/restore.ts")).undo(workspace, options),
});

export const planUndo = workspaceVerb({
  about: "Plans an undo: returns what it would do now.",
  options: WorkspaceCallOptions,
  output: RestorePlan,
  errors: ["nothing_to_undo"],
  command: { "undo --plan": object({ plan: RestorePlan }) },
  by: "writers",
  looks: true,
  agents: [],
  seals: true,
  run: async ({ workspace }, options) =>
    (await import("../../operations/restore-plan.ts")).planUndo(workspace, options),
});
