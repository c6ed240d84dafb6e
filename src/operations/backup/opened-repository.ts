import type {
  BackupList,
  BackupRepository,
  ListBackupsOptions,
  RepositoryInfo,
  RestoreBackupOptions,
  RestoreBackupResult,
  VerifyBackupOptions,
  VerifyBackupResult,
} from "../contract.ts";
import { listBackups } from "./list.ts";
import type { RepositoryAccess } from "./repository-access.ts";
import { restoreBackup } from "./restore.ts";
import { verifyBackup } from "./verify.ts";

/** An open repository as the library gives it. */
export class OpenedRepository implements BackupRepository {
  /** @internal For operations that need more than one side. */
  readonly access: RepositoryAccess;

  constructor(access: RepositoryAccess) {
    this.access = access;
  }

  get info(): RepositoryInfo {
    return this.access.info;
  }

  async list(options: ListBackupsOptions = {}): Promise<BackupList> {
    return listBackups(this.access, options);
  }

  async verify(options: VerifyBackupOptions = {}): Promise<VerifyBackupResult> {
    return verifyBackup(this.access, options);
  }

  async restore(snapshot: string, to: string, options: RestoreBackupOptions = {}): Promise<RestoreBackupResult> {
    return restoreBackup(this.access, { snapshot, to }, options);
  }

  async close(): Promise<void> {
    await this.access.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
