import { BackupRetention } from "../../contract/looking.ts";
import { ForgetBackupsResult, PruneBackupsResult } from "../../contract/repositories.ts";
import { about, object, type Of, opt } from "../../contract/schema.ts";
import { shownPlan, WorkspaceCallOptions } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const ForgetOwnOptions = object({
  ...WorkspaceCallOptions.entries,
  retention: opt(about(BackupRetention, "rules; default: those that are kept with the repository")),
  plan: shownPlan(),
});
export type ForgetOwnOptions = Of<typeof ForgetOwnOptions>;
export const PruneOwnOptions = object({ ...WorkspaceCallOptions.entries, plan: shownPlan() });
export type PruneOwnOptions = Of<typeof PruneOwnOptions>;

const RIGHTS = {
  by: "operators",
  unserved: "it uses the password of the caller's own repository",
  forPage: true,
  withoutFolder: true,
} as const;

export const planForgetBackups = workspaceVerb({
  about: "Plans which backups of this folder the rules would remove from the kept repository. Removes nothing.",
  options: ForgetOwnOptions,
  output: ForgetBackupsResult,
  errors: ["not_found", "refused", "damaged"],
  ...RIGHTS,
  looks: true,
  run: async (hand, options) => (await import("./forget-backups.run.ts")).forgetOwn(hand, options, { dryRun: true }),
});

export const forgetBackups = workspaceVerb({
  about: "Removes backups of this folder from the kept repository by the rules. `pruneBackups` frees their data.",
  options: ForgetOwnOptions,
  output: ForgetBackupsResult,
  errors: ["not_found", "stale_plan", "refused", "damaged", "busy"],
  ...RIGHTS,
  run: async (hand, options) => (await import("./forget-backups.run.ts")).forgetOwn(hand, options),
});

export const planPruneBackups = workspaceVerb({
  about: "Plans which data a prune of the kept repository would mark and free. Frees nothing.",
  options: PruneOwnOptions,
  output: PruneBackupsResult,
  errors: ["not_found", "refused", "damaged"],
  ...RIGHTS,
  looks: true,
  run: async (hand, options) => (await import("./forget-backups.run.ts")).pruneOwn(hand, options, { dryRun: true }),
});

export const pruneBackups = workspaceVerb({
  about: "Frees data of the kept repository that no backup needs.",
  options: PruneOwnOptions,
  output: PruneBackupsResult,
  errors: ["not_found", "stale_plan", "refused", "damaged", "busy"],
  ...RIGHTS,
  run: async (hand, options) => (await import("./forget-backups.run.ts")).pruneOwn(hand, options),
});
