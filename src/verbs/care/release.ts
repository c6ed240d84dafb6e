import { ReleaseOptions, ReleasePlan, ReleaseResult } from "../../contract/care.ts";
import { object, orNull, rows, text } from "../../contract/schema.ts";
import { WorkspaceCallOptions, WorkspaceRef } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const release = workspaceVerb({
  about: "Ends a workspace: its folder becomes an ordinary folder, and its files stay as they are.",
  options: ReleaseOptions,
  output: ReleaseResult,
  errors: ["stale_plan"],
  command: {
    release: object({
      ...ReleaseResult.entries,
      workspace: orNull(WorkspaceRef),
      next: rows(text(), "commands that remove the hooks of agents, which still point to the folder"),
    }),
  },
  needs: "nothing",
  run: async ({ removals, within }, options) => {
    await removals.settled();
    const { release: carryOut } = await import("../../workspace/care/release.ts");
    const result = await within(options.workspaceName, async (workspace) => carryOut(workspace, options));
    await (await import("../../agents/cover.ts")).passCover(process.env, result.workspace.path);
    return result;
  },
});

export const planRelease = workspaceVerb({
  about: "Plans a release with `deletePoints`: lists the points that it would delete now. Changes nothing.",
  options: WorkspaceCallOptions,
  output: ReleasePlan,
  command: { "release --plan": object({ plan: ReleasePlan }) },
  needs: "nothing",
  looks: true,
  run: async ({ within }, { workspaceName }) =>
    within(workspaceName, (await import("../../workspace/care/going.ts")).planRelease),
});
