/** Verbs between a workspace and a repository. */
export { backupRepository, setBackupRepository } from "./backup-repository.ts";
export { createBackup } from "./create-backup.ts";
export {
  ForgetOwnOptions,
  PruneOwnOptions,
  forgetBackups,
  planForgetBackups,
  planPruneBackups,
  pruneBackups,
} from "./forget-backups.ts";
export { listBackups } from "./list-backups.ts";
export { ListedReceipt, Receipts, VerificationDebt, checkReceipt, receipts } from "./receipts.ts";
export { restoreBackup } from "./restore-backup.ts";
export { restoreFromBackup } from "./restore-from-backup.ts";
export { DueResult, Schedule, ScheduleEdit, ScheduleRow, due, schedule, setSchedule } from "./schedule.ts";
