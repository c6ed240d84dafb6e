import { BackupStats, BackupStatsOptions } from "../../contract/repositories.ts";
import { repositoryVerb } from "../kinds/define.ts";

export const stats = repositoryVerb({
  about: "Counts packs, blobs and bytes.",
  options: BackupStatsOptions,
  output: BackupStats,
  command: "backup stats",
  run: async (...given) => (await import("../../backup/stats.ts")).backupStats(...given),
});
