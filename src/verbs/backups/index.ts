/** Verbs between a workspace and a repository. */
export { createBackup } from "./create-backup.ts";
export { restoreBackup } from "./restore-backup.ts";
export { backupRepository, setBackupRepository } from "./backup-repository.ts";
