import { CleanupOptions, CleanupPlan, CleanupResult } from "../../contract/looking.ts";
import { object, text } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { CallOptions } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const previewCleanup = workspaceVerb({
  about: "Plans which save points a cleanup would remove, with the reasons.",
  options: CleanupOptions,
  output: CleanupPlan,
  errors: ["refused", "not_found"],
  command: { "cleanup --plan": object({ plan: CleanupPlan }) },
  looks: true,
  stores: true,
  agents: ["retention", "only"],
  run: async ({ workspace }, options) =>
    (await import("../../operations/cleanup.ts")).previewCleanup(workspace, options),
});

export const runCleanup = workspaceVerb({
  about: "Removes exactly the points that a plan lists.",
  takes: [arg("planId", text())],
  options: CallOptions,
  output: CleanupResult,
  errors: ["stale_plan", "not_found"],
  command: "cleanup",
  needs: "nothing",
  changesPoints: true,
  event: ({ removed, bytes_freed }) => ({ type: "cleanup", data: { points: removed.length, bytes_freed } }),
  run: async ({ control, within }, planId, options) => {
    const { runCleanup: carryOut, workspaceOfPlan } = await import("../../operations/cleanup.ts");
    return within(workspaceOfPlan(control(), planId), async (workspace) => carryOut(workspace, planId, options));
  },
});
