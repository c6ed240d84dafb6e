import { FindInBackupsOptions, FindInBackupsResult } from "../../contract/repositories.ts";
import { text } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { repositoryVerb } from "../kinds/define.ts";

export const find = repositoryVerb({
  about: "Finds entries by name, by path if the pattern has a slash, or by an object's id.",
  takes: [arg("pattern", text())],
  options: FindInBackupsOptions,
  output: FindInBackupsResult,
  command: "backup find",
  run: async (...given) => (await import("../../backup/find.ts")).findInBackups(...given),
});
