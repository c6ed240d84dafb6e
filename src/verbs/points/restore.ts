import { optionsOf, TARGET, PATHS, restored, type Tool } from "../kinds/tool.ts";
import { RestoreOptions, RestorePlan, RestoreResult, throughSqlite } from "../../contract/points.ts";
import { object, opt, pick, text } from "../../contract/schema.ts";
import { RestoreBackupResult, RestoreInPlaceResult } from "../../contract/snapshots.ts";
import { arg } from "../../contract/verb.ts";
import { CallOptions } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

const wentBack = (restored: RestoreResult) =>
  restored.restored_to === null ? null : { type: "restore", data: restored };

const tool: Tool = {
  title: "Go back to a save point",
  about:
    "Makes the folder, or some paths, equal to a save point. The current state is saved first: `undo` brings it back.",
  takes: { target: TARGET, paths: PATHS, ...pick(RestoreOptions, "keepPresent", "plan") },
  output: RestoreResult,
  changes: true,
  async run(client, given, options) {
    const names = ["target", "paths", "keepPresent", "plan"];
    const data = await client.restore(optionsOf<RestoreOptions>(given, names, options));
    return { data, words: restored(data) };
  },
};

export const restore = workspaceVerb({
  about: "Saves the current state, then makes the folder equal to a save point.",
  options: RestoreOptions,
  output: RestoreResult,
  errors: ["not_found", "ambiguous", "damaged", "already_exists", "stale_plan"],
  command: {
    restore: RestoreResult,
    "restore backup:SNAPSHOT": RestoreInPlaceResult,
    "restore backup:SNAPSHOT --to": RestoreBackupResult,
  },
  by: "writers",
  agents: ["target", "paths", "keepPresent", "cause", "plan"],
  seals: ({ to }) => to !== undefined,
  opensPaths: throughSqlite,
  makesPoint: "undo",
  changesPoints: true,
  event: wentBack,
  tool,
  run: async ({ workspace }, { to, ...options }) => {
    if (to === undefined) return (await import("../../change/restore.ts")).restore(workspace, options);
    return (await import("../../change/fork.ts")).restoreTo(workspace, { ...options, to });
  },
});

export const planRestore = workspaceVerb({
  about: "Plans a restore: returns what it would do now. Changes and saves nothing.",
  options: RestoreOptions,
  output: RestorePlan,
  errors: ["not_found", "ambiguous", "damaged"],
  command: { "restore --plan": object({ plan: RestorePlan }) },
  by: "writers",
  looks: true,
  agents: ["target", "paths", "keepPresent", "cause"],
  seals: true,
  opensPaths: throughSqlite,
  run: async ({ workspace }, options) => (await import("../../change/restore-plan.ts")).planRestore(workspace, options),
});

export const restoreLatest = workspaceVerb({
  about:
    "Restores head, not the newest point, so that a rollback survives a restart. Saves the current state first if it differs. Without any point, `restored_to` is null.",
  takes: [arg("workspaceName", opt(text()))],
  options: CallOptions,
  output: RestoreResult,
  by: "writers",
  agents: [],
  changesPoints: true,
  event: wentBack,
  run: async ({ workspace }, _name, options) =>
    (await import("../../change/restore.ts")).restoreLatest(workspace, options),
});
