import { DiffBackupsOptions, DiffBackupsResult, lookErrors, snapshot } from "../../contract/repositories.ts";
import { arg } from "../../contract/verb.ts";
import { repositoryVerb } from "../kinds/define.ts";

export const diff = repositoryVerb({
  about: "Compares two snapshots, or one folder of each.",
  takes: [arg("from", snapshot()), arg("to", snapshot())],
  options: DiffBackupsOptions,
  output: DiffBackupsResult,
  errors: [...lookErrors, "conflict"],
  command: "backup diff",
  run: async (access, from, to, options) => (await import("./diff.run.ts")).diffBackups(access, { from, to }, options),
});
