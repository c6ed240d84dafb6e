import { CleanupOptions, CleanupPlan, CleanupResult, RunCleanupOptions } from "../../contract/looking.ts";
import { object } from "../../contract/schema.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const previewCleanup = workspaceVerb({
  about: "Plans which save points a cleanup would remove, with the reasons. Removes nothing.",
  options: CleanupOptions,
  output: CleanupPlan,
  errors: ["refused", "not_found"],
  command: { "cleanup --plan": object({ plan: CleanupPlan }), "cleanup drop --plan": object({ plan: CleanupPlan }) },
  looks: true,
  withoutFolder: true,
  agents: ["retention", "only"],
  run: async ({ workspace }, options) => (await import("../../keep/cleanup.ts")).previewCleanup(workspace, options),
});

export const runCleanup = workspaceVerb({
  about: "Removes the save points that no rule keeps, or exactly the named ones.",
  options: RunCleanupOptions,
  output: CleanupResult,
  errors: ["stale_plan", "refused", "not_found"],
  command: { cleanup: CleanupResult, "cleanup drop": CleanupResult },
  changesPoints: true,
  withoutFolder: true,
  event: ({ removed, bytes_freed }) => ({ type: "cleanup", data: { points: removed.length, bytes_freed } }),
  run: async ({ workspace }, options) => (await import("../../keep/cleanup.ts")).runCleanup(workspace, options),
});
