import type {
  AgeKeyOptions,
  BackupList,
  BackupRepository,
  BackupStats,
  BackupStatsOptions,
  CallOptions,
  CatBackupResult,
  CopyBackupsOptions,
  CopyBackupsResult,
  StreamBackupResult,
  DiffBackupsOptions,
  DiffBackupsResult,
  FindInBackupsOptions,
  FindInBackupsResult,
  ListedEntry,
  ForgetBackupsOptions,
  ForgetBackupsResult,
  ListBackupsOptions,
  PruneBackupsOptions,
  PruneBackupsResult,
  RepairBackupsOptions,
  RepairBackupsResult,
  RepairSnapshotsOptions,
  RepairSnapshotsResult,
  RepositoryInfo,
  RepositoryKeys,
  RepositoryOptions,
  RestoreBackupOptions,
  RestoreBackupResult,
  RecoverBackupsOptions,
  RecoverBackupsResult,
  RewriteBackupsOptions,
  RewriteBackupsResult,
  PathInput,
  ShowBackupOptions,
  ShowBackupResult,
  StreamBackupOptions,
  TagBackupsOptions,
  TagBackupsResult,
  UnlockResult,
  VerifyBackupOptions,
  VerifyBackupResult,
} from "../contract.ts";
import { CairnError } from "../../errors.ts";
import { checkCalls } from "../checked-calls.ts";
import { REPOSITORY_CALLS } from "../library-calls.ts";
import { checkCommand, processOutput } from "../run-process.ts";
import { addAgeKey } from "./age-password.ts";
import { catBackup } from "./cat.ts";
import { copyBackups } from "./copy.ts";
import { createFromStream } from "./create-from-stream.ts";
import { diffBackups } from "./diff.ts";
import { findInBackups } from "./find.ts";
import { forgetBackups } from "./forget.ts";
import { addKey, changePassword, listKeys, removeKey } from "./keys.ts";
import { listBackups } from "./list.ts";
import { pruneBackups } from "./prune.ts";
import { repairBackups } from "./repair.ts";
import { handedOver } from "../handed-over.ts";
import { repairSnapshots } from "./repair-snapshots.ts";
import type { RepositoryAccess } from "./repository-access.ts";
import { restoreBackup } from "./restore.ts";
import { readFromBackup, showBackup, walkBackup } from "./show.ts";
import { recoverBackups } from "./recover.ts";
import { rewriteBackups } from "./rewrite-snapshots.ts";
import { backupStats } from "./stats.ts";
import { tagBackups } from "./tag.ts";
import { unlock } from "./unlock.ts";
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
    return this.access.during(options, (access) => listBackups(access, options));
  }

  async createFromStream(
    content: AsyncIterable<Uint8Array>,
    options: StreamBackupOptions = {},
  ): Promise<StreamBackupResult> {
    return this.access.during(options, (access) => createFromStream(access, content, options));
  }

  async createFromCommand(
    command: readonly string[],
    options: StreamBackupOptions & { cwd?: string } = {},
  ): Promise<StreamBackupResult> {
    const { cwd = process.cwd(), signal } = options;
    checkCommand(command);
    return this.access.during(options, (access) =>
      createFromStream(access, processOutput({ command, cwd, signal }), options),
    );
  }

  async verify(options: VerifyBackupOptions = {}): Promise<VerifyBackupResult> {
    return this.access.during(options, (access) => verifyBackup(access, options));
  }

  async restore(snapshot: string, to: string, options: RestoreBackupOptions = {}): Promise<RestoreBackupResult> {
    return this.access.during(options, (access) => restoreBackup(access, { snapshot, to }, options));
  }

  async forget(options: ForgetBackupsOptions): Promise<ForgetBackupsResult> {
    return this.access.during(options, (access) => forgetBackups(access, options));
  }

  async tag(options: TagBackupsOptions): Promise<TagBackupsResult> {
    return this.access.during(options, (access) => tagBackups(access, options));
  }

  async prune(options: PruneBackupsOptions = {}): Promise<PruneBackupsResult> {
    return this.access.during(options, (access) => pruneBackups(access, options));
  }

  async copyTo(target: BackupRepository, options: CopyBackupsOptions = {}): Promise<CopyBackupsResult> {
    if (!(target instanceof OpenedRepository))
      throw new CairnError("usage", "copyTo wants a repository that this library has opened");
    return this.access.during(options, (from) =>
      target.access.during(options, (into) => copyBackups(from, into, options)),
    );
  }

  async keys(options: CallOptions = {}): Promise<RepositoryKeys> {
    return this.access.during(options, (access) => listKeys(access));
  }

  async addKey(password: RepositoryOptions["password"], options: CallOptions = {}): Promise<RepositoryKeys> {
    return this.access.during(options, (access) => addKey(access, password, options));
  }

  async addAgeKey(options: AgeKeyOptions): Promise<RepositoryKeys> {
    return this.access.during(options, (access) => addAgeKey(access, options));
  }

  async removeKey(key: string, options: CallOptions = {}): Promise<RepositoryKeys> {
    return this.access.during(options, (access) => removeKey(access, key, options));
  }

  async changePassword(password: RepositoryOptions["password"], options: CallOptions = {}): Promise<RepositoryKeys> {
    return this.access.during(options, (access) => changePassword(access, password, options));
  }

  async repair(options: RepairBackupsOptions): Promise<RepairBackupsResult> {
    return this.access.during(options, (access) => repairBackups(access, options));
  }

  async repairSnapshots(options: RepairSnapshotsOptions = {}): Promise<RepairSnapshotsResult> {
    return this.access.during(options, (access) => repairSnapshots(access, options));
  }

  async rewrite(options: RewriteBackupsOptions): Promise<RewriteBackupsResult> {
    return this.access.during(options, (access) => rewriteBackups(access, options));
  }

  async recover(options: RecoverBackupsOptions = {}): Promise<RecoverBackupsResult> {
    return this.access.during(options, (access) => recoverBackups(access, options));
  }

  async stats(options: BackupStatsOptions = {}): Promise<BackupStats> {
    return this.access.during(options, (access) => backupStats(access, options));
  }

  async find(pattern: string, options: FindInBackupsOptions = {}): Promise<FindInBackupsResult> {
    return this.access.during(options, (access) => findInBackups(access, pattern, options));
  }

  async diff(from: string, to: string, options: DiffBackupsOptions = {}): Promise<DiffBackupsResult> {
    return this.access.during(options, (access) => diffBackups(access, { from, to }, options));
  }

  async show(snapshot: string, path: PathInput = "", options: ShowBackupOptions = {}): Promise<ShowBackupResult> {
    return this.access.during(options, (access) => showBackup(access, { snapshot, path }, options));
  }

  walk(snapshot: string, path: PathInput = "", options: ShowBackupOptions = {}): AsyncIterable<ListedEntry> {
    return handedOver(async (hand) =>
      this.access.during(options, (access) => walkBackup(access, { snapshot, path, hand }, options)),
    );
  }

  read(snapshot: string, path: PathInput, options: ShowBackupOptions = {}): AsyncIterable<Uint8Array> {
    return handedOver(async (hand) =>
      this.access.during(options, (access) => readFromBackup(access, { snapshot, path, hand }, options)),
    );
  }

  async cat(kind: string, id?: string, options: CallOptions = {}): Promise<CatBackupResult> {
    return this.access.during(options, (access) => catBackup(access, { kind, id }, options));
  }

  async unlock(options: CallOptions & { all?: boolean } = {}): Promise<UnlockResult> {
    return this.access.during(options, (access) => unlock(access, options));
  }

  async close(): Promise<void> {
    await this.access.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

checkCalls(OpenedRepository, REPOSITORY_CALLS);
