import { Hooks, HooksEdit } from "../../contract/care.ts";
import { object, orNull } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { WorkspaceCallOptions, WorkspaceRef } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const hooks = workspaceVerb({
  about: "Returns the commands that run before and after saves and backups of a workspace, or null.",
  options: WorkspaceCallOptions,
  output: orNull(Hooks),
  errors: ["refused"],
  by: "operators",
  looks: true,
  run: async ({ workspace }) => (await import("../../keep/hooks.ts")).hooks(workspace),
});

export const setHooks = workspaceVerb({
  about: "Changes the commands that run before and after saves and backups of a workspace. Null removes them.",
  takes: [arg("edit", orNull(HooksEdit))],
  options: WorkspaceCallOptions,
  output: orNull(Hooks),
  errors: ["usage", "refused"],
  command: { hooks: object({ workspace: WorkspaceRef, hooks: orNull(Hooks) }) },
  by: "operators",
  run: async ({ workspace }, edit) => (await import("../../keep/hooks.ts")).setHooks(workspace, edit),
});
