import { RemovePathsOptions, RemovePathsResult } from "../../contract/looking.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const removePaths = workspaceVerb({
  about:
    "Removes paths that match patterns from all points of all workspaces in the control directory, and texts from the records of agents' events.",
  options: RemovePathsOptions,
  output: RemovePathsResult,
  errors: ["usage", "refused", "permission", "busy", "stale_plan"],
  command: "cleanup purge",
  changesPoints: true,
  // No point is removed.
  event: ({ dry_run: isPlan, point_count: count, bytes_freed }) =>
    isPlan || count === 0 ? null : { type: "cleanup", data: { points: 0, bytes_freed } },
  run: async ({ workspace }, options) => (await import("./remove-paths.run.ts")).removePaths(workspace, options),
});
