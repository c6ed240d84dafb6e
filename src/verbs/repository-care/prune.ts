import { PruneBackupsOptions, PruneBackupsResult } from "../../contract/repositories.ts";
import { repositoryVerb } from "../kinds/define.ts";

export const prune = repositoryVerb({
  about: "Frees what no snapshot needs; only deletes wait for an exclusive lock, and are put off without one.",
  options: PruneBackupsOptions,
  output: PruneBackupsResult,
  command: "backup prune",
  run: async (...given) => (await import("../../backup/care/prune.ts")).pruneBackups(...given),
});
