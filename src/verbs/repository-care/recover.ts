import { RecoverBackupsOptions, RecoverBackupsResult } from "../../contract/snapshots.ts";
import { repositoryVerb } from "../kinds/define.ts";

export const recover = repositoryVerb({
  about: "Collects all trees that no snapshot refers to in one new snapshot.",
  options: RecoverBackupsOptions,
  output: RecoverBackupsResult,
  errors: ["refused", "busy"],
  command: "backup recover",
  run: async (...given) => (await import("../../backup/care/recover.ts")).recoverBackups(...given),
});
