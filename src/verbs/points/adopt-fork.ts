import {
  ForkRemovalPlan,
  method,
  RemovedFork,
  RemoveForkOptions,
  RestorePlan,
  RestoreResult,
  throughSqlite,
  why,
} from "../../contract/points.ts";
import { flag, object, type Of, opt, text } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { WorkspaceCallOptions } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const AdoptForkOptions = object({
  ...WorkspaceCallOptions.entries,
  ...method,
  merge: opt(
    flag(
      "bring the fork's changes home beside the folder's own: text files that both changed are merged, and other conflicts stay as they are and are listed",
    ),
  ),
  over: opt(flag("make the folder equal to the fork, although the folder changed since the fork was made")),
  ...why,
});
export type AdoptForkOptions = Of<typeof AdoptForkOptions>;

const UNSERVED = "the daemon takes nothing over from another workspace";
const FORK = text("the fork's workspace name, or its folder as an absolute path");

export const adoptFork = workspaceVerb({
  about:
    "Saves a fork's present and the folder's present, then brings the fork's changes home. Refused if the folder changed since the fork was made, unless `merge` or `over` is given.",
  takes: [arg("fork", FORK)],
  options: AdoptForkOptions,
  output: RestoreResult,
  errors: ["not_found", "refused", "stale_plan"],
  command: "adopt",
  by: "owners",
  unserved: UNSERVED,
  forPage: true,
  opensPaths: throughSqlite,
  makesPoint: "undo",
  changesPoints: true,
  event: (adopted) => ({ type: "restore", data: adopted }),
  run: async ({ workspace }, fork, options) =>
    (await import("./adopt-fork.run.ts")).adoptFork(workspace, fork, options),
});

export const planAdoptFork = workspaceVerb({
  about:
    "Saves a fork's present in the fork, and plans what `adoptFork` would do now. Changes and saves nothing here. Refused for a fork in another control directory, whose content would have to be received.",
  takes: [arg("fork", FORK)],
  options: AdoptForkOptions,
  output: RestorePlan,
  errors: ["not_found", "refused"],
  command: { "adopt --plan": object({ plan: RestorePlan }) },
  by: "owners",
  unserved: UNSERVED,
  forPage: true,
  looks: true,
  stores: true,
  seals: true,
  opensPaths: throughSqlite,
  run: async ({ workspace }, fork, options) =>
    (await import("./adopt-fork.run.ts")).planAdoptFork(workspace, fork, options),
});

export const removeFork = workspaceVerb({
  about: "Saves a fork's present as a point of this workspace, then removes the fork with its folder and points.",
  takes: [arg("fork", FORK)],
  options: RemoveForkOptions,
  output: RemovedFork,
  errors: ["not_found", "refused", "stale_plan"],
  command: { "fork --remove": RemovedFork },
  by: "owners",
  changesPoints: true,
  unserved: "the daemon does not remove folders",
  forPage: true,
  async run({ workspace }, fork, options) {
    const { removeFork: remove } = await import("../../change/remove-fork.ts");
    const result = await remove(workspace, fork, options);
    await (await import("../../agents/cover.ts")).passCover(process.env, result.workspace.path);
    return result;
  },
});

export const planRemoveFork = workspaceVerb({
  about:
    "Plans the removal of a fork: lists the entries that it would save and the points that it would remove now. Changes and saves nothing.",
  takes: [arg("fork", FORK)],
  options: RemoveForkOptions,
  output: ForkRemovalPlan,
  errors: ["not_found", "refused"],
  command: { "fork --remove --plan": object({ plan: ForkRemovalPlan }) },
  by: "owners",
  looks: true,
  unserved: "the daemon does not remove folders",
  forPage: true,
  run: async ({ workspace }, fork, options) =>
    (await import("../../change/fork-plan.ts")).planRemoveFork(workspace, fork, options),
});
