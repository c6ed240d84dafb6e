import type { BackupList, BackupRepository, ListBackupsOptions, RepositoryInfo } from "../contract.ts";
import { listBackups } from "./list.ts";
import type { RepositoryAccess } from "./repository-access.ts";

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

  async close(): Promise<void> {
    await this.access.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
