import { PruneBackupsOptions, PruneBackupsResult } from "../../contract/repositories.ts";
import { repositoryVerb } from "../kinds/define.ts";

export const prune = repositoryVerb({
  about:
    "Frees data that no snapshot needs. Deletes need an exclusive lock; without it they are postponed to the next prune.",
  options: PruneBackupsOptions,
  output: PruneBackupsResult,
  command: "backup prune",
  run: async (...given) => (await import("../../backup/care/prune.ts")).pruneBackups(...given),
});
