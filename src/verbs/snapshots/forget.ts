import { ForgetBackupsOptions, ForgetBackupsResult } from "../../contract/repositories.ts";
import { repositoryVerb } from "../kinds/define.ts";

export const forget = repositoryVerb({
  about: "Removes snapshots by rules or by id.",
  options: ForgetBackupsOptions,
  output: ForgetBackupsResult,
  errors: ["usage", "refused", "damaged", "busy"],
  command: "backup forget",
  run: async (...given) => (await import("../../backup/care/forget.ts")).forgetBackups(...given),
});
