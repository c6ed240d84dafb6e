import { VerifyBackupOptions, VerifyBackupResult } from "../../contract/repositories.ts";
import { repositoryVerb } from "../kinds/define.ts";

export const verify = repositoryVerb({
  about: "Verifies the repository, or the data of some snapshots. Damage is returned, not thrown.",
  options: VerifyBackupOptions,
  output: VerifyBackupResult,
  errors: ["not_found", "ambiguous"],
  command: "backup verify",
  run: async (access, options) => {
    const { orThrown } = await import("../../look/verify.ts");
    const { verifyBackup } = await import("../../backup/care/restore-check.ts");
    return orThrown(await verifyBackup(access, options), options);
  },
});
