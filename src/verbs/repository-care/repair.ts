import { RepairBackupsOptions, RepairBackupsResult } from "../../contract/repositories.ts";
import { repositoryVerb } from "../kinds/define.ts";

export const repair = repositoryVerb({
  about: "Repairs the index or damaged packs.",
  options: RepairBackupsOptions,
  output: RepairBackupsResult,
  errors: ["stale_plan", "busy"],
  command: "backup repair",
  run: async (...given) => (await import("../../backup/care/repair.ts")).repairBackups(...given),
});
