import { DrillOptions, DrillResult } from "../../contract/repositories.ts";
import { repositoryVerb } from "../kinds/define.ts";

export const drill = repositoryVerb({
  about:
    "Restores the newest snapshots as a new machine would, proves and checks the result, and removes it. Damage is returned, not thrown.",
  options: DrillOptions,
  output: DrillResult,
  errors: ["not_found", "no_space", "refused"],
  command: "backup drill",
  run: async (access, options) => {
    const { orThrown } = await import("../../look/verify.ts");
    const { drillRestore } = await import("../../backup/care/restore-check.ts");
    return orThrown(await drillRestore(access, options), options);
  },
});
