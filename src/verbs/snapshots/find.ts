import { FindInBackupsOptions, FindInBackupsResult } from "../../contract/repositories.ts";
import { text } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { repositoryVerb } from "../kinds/define.ts";

export const find = repositoryVerb({
  about: "Finds entries by name, by path where the pattern has a slash, or by the id of an object.",
  takes: [arg("pattern", text())],
  options: FindInBackupsOptions,
  output: FindInBackupsResult,
  command: "backup find",
  run: async (...given) => (await import("../../backup/find.ts")).findInBackups(...given),
});
