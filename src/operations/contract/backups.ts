import type {
  BackupList,
  BackupSnapshot,
  ListBackupsOptions,
  RepositoryInfo,
  SnapshotChoice,
  SnapshotFilter,
  StreamBackupOptions,
  StreamBackupResult,
  TransferredSize,
  UnreadableSnapshot,
} from "./backup-snapshots.ts";
import type { BackupRetention, ListedEntry } from "./looking.ts";
import type { Aspect, CallOptions, EntryKind, NamedPath, PathInput } from "./points.ts";
import type { RestoreBackupOptions, RestoreBackupResult } from "./restores.ts";
import type {
  RepairSnapshotsOptions,
  RepairSnapshotsResult,
  RecoverBackupsOptions,
  RecoverBackupsResult,
  RewriteBackupsOptions,
  RewriteBackupsResult,
  TagBackupsOptions,
  TagBackupsResult,
} from "./rewritten-snapshots.ts";

/**
 * Repositories off the machine, in restic's format. Snapshots are named by their id, any unique prefix of it, or
 * `latest`; a snapshot of a save point also by that point's id.
 */

// ------------------------------------------------------------------------------------------ repositories

/**
 * Where a repository lies and what opens it. `signal` ends opening, and nothing once it is open: each call has its own.
 * `onWarning` also hears what calls without one of their own have to say.
 */
export interface RepositoryOptions extends CallOptions {
  /** `/path`, `local:/path`, and what other storages are called. */
  repository: string;
  /** Asked for only when it is needed. */
  password: string | Uint8Array | (() => Promise<string | Uint8Array>);
  /** Where a storage looks up its credentials; default: the process's own. */
  env?: Readonly<Record<string, string | undefined>>;
  limits?: TransferLimits;
  /** A call that will be made first: its threads start while the password's key is derived. Nothing else depends on it. */
  soon?: "verify" | "restore";
}

export interface TransferLimits {
  /** Bytes a second to the storage. */
  uploadRate?: number;
  /** Bytes a second from it. */
  downloadRate?: number;
  /** Calls under way at once. */
  connections?: number;
}

export interface InitRepositoryOptions extends RepositoryOptions {
  /** A workspace (an open client's `repoRoot`, a folder) whose cutting of large files restic shall share there. */
  like?: string;
}

/** An open repository. Every call takes and gives back the locks that it needs. */
export interface BackupRepository {
  readonly info: RepositoryInfo;
  list(options?: ListBackupsOptions): Promise<BackupList>;
  /**
   * A snapshot of one file, of what comes piece by piece; it is written when the stream has ended well, else none. A stream
   * cannot be gone on with after a failure. `refused` when nothing comes, `busy`, `no_space`, `interrupted`.
   */
  createFromStream(content: AsyncIterable<Uint8Array>, options?: StreamBackupOptions): Promise<StreamBackupResult>;
  /** The same of what a command writes to stdout; without a snapshot when its status is not 0: `io`. `not_found`, `permission`. */
  createFromCommand(
    command: readonly string[],
    options?: StreamBackupOptions & { cwd?: string },
  ): Promise<StreamBackupResult>;
  /** Damage is a result; `not_found`, `ambiguous` for a snapshot that is not there. */
  verify(options?: VerifyBackupOptions): Promise<VerifyBackupResult>;
  /** Writes a snapshot into an absent or empty folder. `already_exists`, `no_space`; `damaged` when what was written is not what was saved. */
  restore(snapshot: string, to: string, options?: RestoreBackupOptions): Promise<RestoreBackupResult>;
  /**
   * Removes snapshots by rules or by id, deletes under an exclusive lock; those that cannot be read only by id. `usage`
   * without either; `refused` when the rules keep nothing of a group; `damaged` with `prune` while others cannot be read; `busy`.
   */
  forget(options: ForgetBackupsOptions): Promise<ForgetBackupsResult>;
  /**
   * Gives snapshots other tags, under an exclusive lock: each gets another id. `usage` where none are named or chosen, or no
   * tags; `not_found`, `ambiguous`, `busy`.
   */
  tag(options: TagBackupsOptions): Promise<TagBackupsResult>;
  /** Frees what no snapshot needs, beside running backups; only deletes wait for an exclusive lock, and are put off without. */
  prune(options?: PruneBackupsOptions): Promise<PruneBackupsResult>;
  /**
   * Brings snapshots into another repository. Of those that are there only content goes that the target's index lacks, e.g.
   * after a repair; packs that it has lost without one are a warning. Nothing damaged is passed on: snapshots that lack
   * something are `not_copied`; it throws `damaged` where all do and none is there.
   */
  copyTo(target: BackupRepository, options?: CopyBackupsOptions): Promise<CopyBackupsResult>;
  keys(options?: CallOptions): Promise<RepositoryKeys>;
  /** One more password that opens it. */
  addKey(password: RepositoryOptions["password"], options?: CallOptions): Promise<RepositoryKeys>;
  /** One more that nobody has seen: it is in a file only, encrypted for people's keys. `already_exists` where the file is there. */
  addAgeKey(options: AgeKeyOptions): Promise<RepositoryKeys>;
  /** `refused` for the one that is in use, `not_found`, `ambiguous`. */
  removeKey(key: string, options?: CallOptions): Promise<RepositoryKeys>;
  /** The password that opened it opens it no longer, but the new one; written before the old one goes. */
  changePassword(password: RepositoryOptions["password"], options?: CallOptions): Promise<RepositoryKeys>;
  /** Mends what can be mended, under an exclusive lock. `stale_plan`, `busy`. */
  repair(options: RepairBackupsOptions): Promise<RepairBackupsResult>;
  /**
   * New snapshots of those that lack something, without it. `refused` while `repair` of the index or of packs has work: what is
   * lost is not known before; `busy`.
   */
  repairSnapshots(options?: RepairSnapshotsOptions): Promise<RepairSnapshotsResult>;
  /**
   * Takes paths out of snapshots by patterns; the old ones go with `forget`, and what only they needed with `prune`. `usage`
   * without a pattern; `refused` likewise; `busy`.
   */
  rewrite(options: RewriteBackupsOptions): Promise<RewriteBackupsResult>;
  /** Makes snapshots of what is still there and no snapshot leads to: of what was forgotten, or lost its file. `refused` likewise; `busy`. */
  recover(options?: RecoverBackupsOptions): Promise<RecoverBackupsResult>;
  stats(options?: BackupStatsOptions): Promise<BackupStats>;
  /** Entries whose name, or path where the pattern has a slash, fits a pattern with `*`, `?`, `[…]` and `**`. */
  find(pattern: string, options?: FindInBackupsOptions): Promise<FindInBackupsResult>;
  /** What differs between two snapshots, or one folder of each. `not_found`, `ambiguous`, `damaged`; `conflict` for what is no folder. */
  diff(from: string, to: string, options?: DiffBackupsOptions): Promise<DiffBackupsResult>;
  /** What a snapshot holds at a path: a directory's entries, or the one entry itself. `not_found`, `ambiguous`, `damaged`. */
  show(snapshot: string, path?: PathInput, options?: ShowBackupOptions): Promise<ShowBackupResult>;
  /** Everything below a path, each folder before what lies in it; a shared lock is held until it ends or nobody takes any more. Throws the same. */
  walk(snapshot: string, path?: PathInput, options?: ShowBackupOptions): AsyncIterable<ListedEntry>;
  /**
   * A file's content in order, each piece as it was saved; a shared lock is held until it ends or nobody takes any more.
   * Throws the same, and `conflict` for what is no file.
   */
  read(snapshot: string, path: PathInput, options?: ShowBackupOptions): AsyncIterable<Uint8Array>;
  /** `config`, or `snapshot`, `index`, `key`, `lock`, `tree` or `blob` with an id. */
  cat(kind: string, id?: string, options?: CallOptions): Promise<CatBackupResult>;
  /** Removes locks whose process is gone or that are 30 minutes old; `all`: every one, whoever holds it. */
  unlock(options?: CallOptions & { all?: boolean }): Promise<UnlockResult>;
  /** Calls under way on a repository off the machine end with `interrupted`. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

// ------------------------------------------------------------------------------------------------ verify

export interface VerifyBackupOptions extends CallOptions {
  /** Only what these snapshots need; default everything that there is. */
  snapshots?: readonly string[];
  /** Structure alone: everything but the content of packs. */
  quick?: boolean;
  /** Restore the chosen snapshots, or else the newest, into a folder of their own, have databases in it checked, and remove it. */
  restoreCheck?: boolean;
  /** Where that folder is made; default: the user's cache directory. */
  scratch?: string;
  /** Of the packs only part n of m, always the same ones; all m parts together are all packs. */
  subset?: { part: number; of: number };
}

/** A path of a snapshot that cannot be had any more, fully or in part. */
export interface BackupLoss extends NamedPath {
  snapshot_id: string;
}

export interface BackupProblem {
  /**
   * `key_damaged`, `index_damaged`, `snapshot_damaged`, `pack_missing`, `pack_size`, `pack_damaged`, `blob_damaged`, …
   * `digest_unverified` as a note: a newer program wrote it, and nothing is said about it either way.
   */
  kind: string;
  /** Name of the file, or id of the blob, in hex. */
  object: string;
  detail: string;
  /** `note`: nothing is lost, e.g. a pack that a killed writer left. */
  severity: "damage" | "note";
  /** What it costs: at most 1000 paths, but at least one of each snapshot. */
  losses: BackupLoss[];
}

export interface VerifyBackupResult extends RepositoryInfo {
  /** `digests`: state digests that were proven, of snapshots that nothing damaged costs anything. */
  checked: { snapshots: number; trees: number; packs: number; blobs: number; bytes: number; digests: number };
  /** True when every byte was read that was asked for. */
  read_data: boolean;
  /** Empty unless it was asked for. */
  restored: RestoredForCheck[];
  problems: BackupProblem[];
  duration_ms: number;
}

/** A snapshot that was restored to see that it can be. */
export interface RestoredForCheck {
  snapshot_id: string;
  entries: number;
  bytes: number;
  /** What was read back, and is what was saved; null where that is not so, or nothing says what it should be. */
  state_digest: string | null;
  /** SQLite databases in it. */
  databases: number;
}

// ----------------------------------------------------------------------------------------- forget, prune

export type SnapshotGrouping = "host" | "paths" | "tags";

export interface ForgetBackupsOptions extends CallOptions, SnapshotFilter {
  /** Exactly these instead of rules; `latest` is the newest that the filter takes, and one that it does not take is `usage`. */
  snapshots?: readonly string[];
  /** For each group of its own. */
  retention?: BackupRetention;
  /** What makes a group; default host and paths. */
  groupBy?: readonly SnapshotGrouping[];
  /** Free what nothing needs any more, too. */
  prune?: boolean;
  dryRun?: boolean;
}

export interface ForgetDecision {
  snapshot_id: string;
  created_at: string;
  keep: boolean;
  /** The rules that keep it, or why it goes. */
  reasons: string[];
}

export interface ForgetGroup {
  hostname: string | null;
  paths: string[] | null;
  tags: string[] | null;
  /** Newest first. */
  snapshots: ForgetDecision[];
}

export interface ForgetBackupsResult extends RepositoryInfo {
  dry_run: boolean;
  groups: ForgetGroup[];
  /** Those that were named and whose file cannot be read: they go (or would) and are of no group. */
  unreadable: UnreadableSnapshot[];
  removed: string[];
  /** Null unless it was asked for. */
  prune: PruneBackupsResult | null;
  duration_ms: number;
}

export interface PruneBackupsOptions extends CallOptions {
  /** A pack is written anew when more than this share of it is not needed; default 0.05. */
  maxUnused?: number;
  dryRun?: boolean;
}

export interface PruneBackupsResult extends RepositoryInfo {
  dry_run: boolean;
  removed_packs: number;
  /** Packs whose needed content was put into new ones. */
  repacked_packs: number;
  new_packs: number;
  /** Small packs and index files that became fewer, larger ones; of a dry run 0: it does not say. */
  merged_packs: number;
  merged_indexes: number;
  /** Files in no index, left by writers that were killed. */
  unindexed_packs: number;
  bytes_freed: number;
  /** Bytes that nothing needs and that stay, because writing their packs anew would not pay. */
  unused_bytes: number;
  /** True when others used the repository: what was to go goes with the next prune. */
  postponed: boolean;
  /** Packs that were left alone because they are damaged. */
  damaged_packs: string[];
  duration_ms: number;
}

// ----------------------------------------------------------------------------------------- keys and locks

export interface RepositoryKey {
  key_id: string;
  /** Null where its writer did not say. */
  created_at: string | null;
  hostname: string;
  username: string;
  /** True for the one that opened the repository now. */
  current: boolean;
}

export interface AgeKeyOptions extends CallOptions {
  /** `age1…`; each of them can open the file alone. */
  recipients: readonly string[];
  /** The file that is made. */
  file: string;
}

export interface RepositoryKeys extends RepositoryInfo {
  keys: RepositoryKey[];
  damaged: { key_id: string; detail: string }[];
}

export interface UnlockResult extends RepositoryInfo {
  /** Locks that were removed. */
  removed: number;
  /** Locks that others hold. */
  held: number;
}

// ------------------------------------------------------------------------------------------------- copy

export interface CopyBackupsOptions extends CallOptions, SnapshotChoice {
  dryRun?: boolean;
}

/** About the repository that was copied into. */
export interface CopyBackupsResult extends RepositoryInfo {
  dry_run: boolean;
  /** `new_id` null in a dry run. */
  copied: { snapshot_id: string; new_id: string | null }[];
  /** Those that lack something that is lost or damaged, and what. */
  not_copied: { snapshot_id: string; detail: string }[];
  /** How many were there already. */
  present: number;
  added: TransferredSize;
  duration_ms: number;
}

// ----------------------------------------------------------------------------------------------- repair

export interface RepairBackupsOptions extends CallOptions {
  /**
   * `index`: index files are made to say what packs there are. `packs`: packs that are damaged are read, what is sound in them
   * goes into new ones, the rest counts as absent and is stored again by the next backup of a folder that still has it.
   */
  what: "index" | "packs";
  /** Of packs: which; default those that a verification of every byte finds. */
  packs?: readonly string[];
  /** Only say what would be done. */
  plan?: boolean;
}

export interface RepairBackupsResult extends RepositoryInfo {
  /** True: nothing was changed. */
  plan: boolean;
  /** Packs that no index listed and that are listed now. */
  added_packs: string[];
  /** Packs whose entries went, and why. */
  dropped_packs: { pack: string; blobs: number; reason: string }[];
  damaged_indexes: string[];
  /** Pack files that no index lists and whose header cannot be read; left alone. */
  unreadable_packs: { pack: string; reason: string }[];
  /** Blobs that were saved out of damaged packs. Null in a plan. */
  saved_blobs: number | null;
  /** Blobs of missing and damaged packs that are in no other; an id each. Null in a plan. */
  lost_blobs: string[] | null;
  duration_ms: number;
}

// --------------------------------------------------------------------------------------- stats, find, cat

export interface BackupStats extends RepositoryInfo {
  snapshots: number;
  packs: number;
  /** Bytes of all packs. */
  pack_bytes: number;
  unindexed_packs: number;
  index_files: number;
  data_blobs: number;
  tree_blobs: number;
  /** Plain bytes of all blobs, each counted once. */
  plain_bytes: number;
  /** Sealed bytes of the same. */
  stored_bytes: number;
  /** Null where no snapshots were asked about. */
  selection: BackupSelection | null;
}

export interface BackupStatsOptions extends CallOptions, SnapshotChoice {}

/** What chosen snapshots hold. */
export interface BackupSelection {
  snapshots: number;
  /** What a restore of each of them writes, together: names of files, and bytes of each file once, whatever names it has. */
  files: number;
  bytes: number;
  /** Each counted once; others may need them too. */
  data_blobs: number;
  tree_blobs: number;
  plain_bytes: number;
  stored_bytes: number;
}

export interface FindInBackupsOptions extends CallOptions, SnapshotChoice {
  /** The pattern is the id of such an object, or a prefix: what holds it is found. */
  object?: "blob" | "tree" | "pack";
  /** Of names and paths; not with `object`. */
  ignoreCase?: boolean;
  /** At most so many; default 10 000. */
  limit?: number;
}

export interface FoundInBackup extends NamedPath {
  snapshot_id: string;
  created_at: string;
  kind: string;
  size: number | null;
  /** Null of the topmost directory, which has no entry of its own. */
  modified_at: string | null;
}

export interface FindInBackupsResult extends RepositoryInfo {
  found: FoundInBackup[];
  truncated: boolean;
  /** What could not be looked into; it hides nothing else. */
  damaged: DamagedInBackup[];
}

/** A directory of a snapshot that cannot be read, or the whole snapshot: `/`. */
export interface DamagedInBackup extends NamedPath {
  snapshot_id: string;
  detail: string;
}

/** Folders in them instead of all, as `subfolder` of a restore names one; paths are from these. */
export interface DiffBackupsOptions extends CallOptions {
  fromSubfolder?: PathInput;
  toSubfolder?: PathInput;
}

export interface DiffBackupsEntry extends NamedPath {
  change: "added" | "removed" | "modified";
  kind: string;
  /** What differs; empty for added and removed. */
  aspects: Aspect[];
  size_before?: number;
  size_after?: number;
}

export interface DiffBackupsResult extends RepositoryInfo {
  from: string;
  to: string;
  entries: DiffBackupsEntry[];
  truncated: boolean;
}

/** The filter says of which snapshots `latest` is the newest. */
export type ShowBackupOptions = CallOptions & SnapshotFilter;

/** `path`: from what was saved on. `entries`: a directory's children, not deeper; for anything else the one entry itself. */
export interface ShowBackupResult extends RepositoryInfo, NamedPath {
  snapshot: BackupSnapshot;
  kind: EntryKind;
  entries: ListedEntry[];
}

export interface CatBackupResult extends RepositoryInfo {
  kind: string;
  id: string;
  /** Decoded JSON of the file or the tree; without secrets. */
  content: unknown;
}
