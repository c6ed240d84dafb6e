import { EngineOptions, EngineResult } from "../../contract/care.ts";
import { arg } from "../../contract/verb.ts";
import { EngineType } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const setEngine = workspaceVerb({
  about:
    "Changes the engine of later points. `btrfs-snapshot` converts a plain folder on btrfs into a subvolume in place.",
  takes: [arg("type", EngineType)],
  options: EngineOptions,
  output: EngineResult,
  errors: ["unsupported", "refused", "permission", "conflict"],
  by: "operators",
  run: async ({ workspace }, type, options) =>
    (await import("../../keep/engine.ts")).setEngine(workspace, type, options),
});
