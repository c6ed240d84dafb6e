import { optionsOf, restored, type Tool } from "../kinds/tool.ts";
import {
  OperationList,
  PlanUndoOptions,
  RestorePlan,
  RestoreResult,
  throughSqlite,
  UndoOptions,
} from "../../contract/points.ts";
import { object, pick } from "../../contract/schema.ts";
import { WorkspaceCallOptions } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

const tool: Tool = {
  title: "Undo the last restore",
  about:
    "Reverts the last restore, rewind or adoption that is not undone yet. Files that were edited since then stay, and the answer lists them.",
  takes: pick(UndoOptions, "count", "plan"),
  output: RestoreResult,
  changes: true,
  async run(client, given, options) {
    const data = await client.undo(optionsOf<UndoOptions>(given, ["count", "plan"], options));
    return { data, words: restored(data) };
  },
};

export const undo = workspaceVerb({
  about:
    "Reverts the last restore, rewind, adoption or redo that is not undone yet. Changes only entries that the operation changed. Entries that were edited since then stay, and the answer lists them.",
  options: UndoOptions,
  output: RestoreResult,
  errors: ["nothing_to_undo", "conflict", "stale_plan"],
  command: "undo",
  by: "writers",
  agents: ["expected", "count", "plan"],
  opensPaths: throughSqlite,
  makesPoint: "undo",
  changesPoints: true,
  event: (undone) => ({ type: "undo", data: undone }),
  tool,
  run: async ({ workspace }, options) => (await import("../../change/restore.ts")).undo(workspace, options),
});

export const redo = workspaceVerb({
  about: "Reverts the last undo. A new restore, rewind or adoption clears what can be redone.",
  options: UndoOptions,
  output: RestoreResult,
  errors: ["nothing_to_undo", "conflict", "stale_plan"],
  command: "redo",
  by: "writers",
  agents: ["expected", "count", "plan"],
  opensPaths: throughSqlite,
  makesPoint: "undo",
  changesPoints: true,
  event: (redone) => ({ type: "restore", data: redone }),
  run: async ({ workspace }, options) => (await import("../../change/restore.ts")).redo(workspace, options),
});

export const operations = workspaceVerb({
  about: "Returns the operations that changed the folder, newest first, and those that `undo` and `redo` revert next.",
  options: WorkspaceCallOptions,
  output: OperationList,
  command: "operations",
  by: "writers",
  looks: true,
  agents: [],
  run: async ({ workspace }, options) => (await import("../../change/restore.ts")).operations(workspace, options),
});

export const planUndo = workspaceVerb({
  about: "Plans an undo: returns what it would do now.",
  options: PlanUndoOptions,
  output: RestorePlan,
  errors: ["nothing_to_undo", "conflict"],
  command: { "undo --plan": object({ plan: RestorePlan }) },
  by: "writers",
  looks: true,
  agents: ["expected", "count"],
  seals: true,
  run: async ({ workspace }, options) => (await import("../../change/restore-plan.ts")).planUndo(workspace, options),
});

export const planRedo = workspaceVerb({
  about: "Plans a redo: returns what it would do now.",
  options: PlanUndoOptions,
  output: RestorePlan,
  errors: ["nothing_to_undo", "conflict"],
  command: { "redo --plan": object({ plan: RestorePlan }) },
  by: "writers",
  looks: true,
  agents: ["expected", "count"],
  seals: true,
  run: async ({ workspace }, options) => (await import("../../change/restore-plan.ts")).planRedo(workspace, options),
});
