import { CatBackupResult } from "../../contract/repositories.ts";
import { opt, text } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { CallOptions } from "../../contract/words.ts";
import { repositoryVerb } from "../kinds/define.ts";

export const cat = repositoryVerb({
  about: "Decodes `config`, or a `snapshot`, `index`, `key`, `lock`, `tree` or `blob` by its id.",
  takes: [arg("kind", text()), arg("id", opt(text()))],
  options: CallOptions,
  output: CatBackupResult,
  command: "backup cat",
  run: async (access, kind, id, options) =>
    (await import("../../backup/cat.ts")).catBackup(access, { kind, id }, options),
});
