/**
 * Every input and output of the library, as types. The objects with snake_case names are at once what the library
 * returns and what `--json` prints (docs/json.md); options are ours and are camelCase.
 *
 * Units: sizes in bytes, durations in milliseconds, instants as ISO 8601 in UTC (`2026-11-20T09:10:11.123Z`).
 * Paths are relative to the workspace's root, without a leading `./` or `/`, unless said otherwise; the root itself
 * is "". In a path that is not UTF-8 each byte that is none stands as `\xff`, and its exact bytes are in base64 beside it (`…_b64`).
 * A list that chooses (`paths`, `include`, `snapshots`, `packs`, `only`) names something. An empty one is `usage`: what a
 * program found to be none is not the everything that an absent one means. Those of a filter, which may be empty, narrow.
 * Errors are always `CairnError`; the codes named here are those a caller may want to tell apart.
 */
import type { ControlId, SavePointId } from "../ids.ts";
import type { CreateBackupOptions, CreateBackupResult } from "./contract/backup-snapshots.ts";
import type { BackupRepository, InitRepositoryOptions, RepositoryOptions } from "./contract/backups.ts";
import type {
  DoctorOptions,
  DoctorResult,
  Conversion,
  EngineOptions,
  EngineResult,
  ForkOptions,
  ForkResult,
  InspectOptions,
  InspectResult,
  ReleaseOptions,
  ReleaseResult,
  RelocateResult,
  RunOptions,
  RunResult,
  StoreInfo,
  ViewLease,
  WorkspaceInfo,
} from "./contract/care.ts";
import type {
  CleanupOptions,
  CleanupPlan,
  CleanupResult,
  DiffOptions,
  DiffResult,
  EngineReason,
  HistoryOptions,
  HistoryResult,
  ListedEntry,
  PolicyEdit,
  PolicyResult,
  ShowResult,
  StatusResult,
  VerifyOptions,
  VerifyResult,
  WorkspaceRef,
} from "./contract/looking.ts";
import type {
  CallOptions,
  EngineType,
  GuardName,
  PathInput,
  RestoreOptions,
  RestorePlan,
  RestoreResult,
  SaveOptions,
  SavePoint,
  SaveResult,
  UndoOptions,
  WorkspaceCallOptions,
} from "./contract/points.ts";
import type {
  RestoreInPlaceOptions,
  RestoreInPlaceResult,
  VerifyReceiptOptions,
  VerifyReceiptResult,
} from "./contract/restores.ts";

export type * from "./contract/points.ts";
export type * from "./contract/looking.ts";
export type * from "./contract/care.ts";
export type * from "./contract/backup-snapshots.ts";
export type * from "./contract/backups.ts";
export type * from "./contract/restores.ts";
export type * from "./contract/rewritten-snapshots.ts";

// -------------------------------------------------------------------------------------------- the library

export interface InitOptions extends CallOptions {
  /** Of the whole; 1 to 60 letters, digits, `-`, `_`. Default: the folder's name. */
  name?: string;
  /** Absent: the best that works there. With `btrfs-snapshot` a plain folder on btrfs is made a subvolume in place. */
  engineType?: EngineType;
  /** Store quota in bytes, default 20 % of the file system. */
  quotaBytes?: number;
  /** Asked once, here: later saves of the folder are not refused for where it lies. */
  allow?: readonly GuardName[];
}

export interface AdoptOptions extends InitOptions {
  /** Absolute; default by the rules of the specification, section 5. */
  controlDirectory?: string;
}

export interface OpenOptions extends CallOptions {
  /** Where the folder's control directory lies, when it cannot be found by itself. Absolute. */
  controlDirectory?: string;
}

export interface RelocateOptions extends OpenOptions {
  /** Guards of the new place that do not count: `home`, `nested`, `git`. */
  allow?: readonly GuardName[];
}

export interface SealWhenIdleOptions {
  idleMs?: number;
  /** Told when points cannot be sealed. */
  onWarning?: (message: string) => void;
}

/**
 * One open control directory, with one of its workspaces in hand. Every target may be an id, a prefix, `latest`, `head`,
 * `head~N`. Where others have relocated the workspace since, every call fails with `conflict` (new path in
 * `details.relocated_to`); where it was released with `not_a_workspace`, where its records are gone with `not_found`.
 */
export interface Client {
  /** Self-contained: its root; adopted: the workspace's folder. Absolute. */
  readonly repoRoot: string;
  readonly repoId: ControlId;
  readonly engineType: EngineType;
  readonly controlDirectory: string;
  readonly workspace: WorkspaceRef;
  /** True when this call made the control directory. */
  readonly created: boolean;
  readonly engineReasons: readonly EngineReason[];
  /** What this call converted the folder by; null where it was fit for its engine. */
  readonly conversion: Conversion | null;
  /** Absolute. Unknown: `not_found`. */
  workspacePath(name?: string): string;

  /** One save point of the folder as it is. `busy`, `no_space`, `refused`, `detached`, `interrupted`. */
  save(options?: SaveOptions): Promise<SaveResult>;
  /** Saves the present, then makes the folder equal to the target. `not_found`, `ambiguous`, `damaged`. */
  restore(options: RestoreOptions): Promise<RestoreResult>;
  planRestore(options: RestoreOptions): Promise<RestorePlan>;
  /** Back to before the last restore or undo. `nothing_to_undo`. */
  undo(options?: UndoOptions): Promise<RestoreResult>;
  planUndo(options?: WorkspaceCallOptions): Promise<RestorePlan>;
  /** To head, the present saved first when it differs; nothing saved → nothing done, `restored_to: null`. */
  restoreLatest(workspaceName?: string, options?: CallOptions): Promise<RestoreResult>;

  /** Limit ≤ 0 or absent: all. */
  history(workspaceName?: string, limit?: number, options?: HistoryOptions): Promise<HistoryResult>;
  latestSavePoint(workspaceName?: string, options?: CallOptions): Promise<SavePoint | null>;
  hasSavePoints(workspaceName?: string, options?: CallOptions): Promise<boolean>;
  /** The one point that a target means. `not_found`, `ambiguous`, `invalid_id`. */
  resolve(target: string, options?: WorkspaceCallOptions): Promise<SavePoint>;
  status(options?: WorkspaceCallOptions): Promise<StatusResult>;
  /** From a to b; b absent or null: the folder as it is now. */
  diff(a: string, b?: string | null, options?: DiffOptions): Promise<DiffResult>;
  /** Path absent or empty: the root. `not_found`. */
  show(target: string, path?: PathInput, options?: WorkspaceCallOptions): Promise<ShowResult>;
  /** Everything below a path, each folder before what lies in it; of what is no folder the one entry itself. Likewise. */
  walk(target: string, path?: PathInput, options?: WorkspaceCallOptions): AsyncIterable<ListedEntry>;
  /** A file's content in order, in pieces of at most 1 MiB. Target null: the folder as it is now. `not_found`, `damaged`; `conflict` for what is no file. */
  read(target: string | null, path: PathInput, options?: WorkspaceCallOptions): AsyncIterable<Uint8Array>;

  verify(target: string, options?: VerifyOptions & WorkspaceCallOptions): Promise<VerifyResult>;
  /** Every point of every workspace in this control directory, and the store itself; other control directories are not read. */
  verifyAll(options?: VerifyOptions): Promise<VerifyResult>;
  /** Target: an absolute path that is absent or an empty folder. `already_exists`, `refused`. */
  fork(target: string, path: string, options?: ForkOptions): Promise<ForkResult>;
  view(target: string, options?: WorkspaceCallOptions): Promise<ViewLease>;
  listViews(options?: CallOptions): Promise<ViewLease[]>;
  /** Unknown: `not_found`. */
  closeView(viewId: string, options?: CallOptions): Promise<ViewLease>;
  pin(target: string, options?: WorkspaceCallOptions): Promise<SavePoint>;
  unpin(target: string, options?: WorkspaceCallOptions): Promise<SavePoint>;
  tag(
    target: string,
    edit: { add?: readonly string[]; remove?: readonly string[] },
    options?: WorkspaceCallOptions,
  ): Promise<SavePoint>;
  previewCleanup(options?: CleanupOptions): Promise<CleanupPlan>;
  /** Removes exactly what the plan lists. `stale_plan`; `not_found` for a plan that ran already. */
  runCleanup(planId: string, options?: CallOptions): Promise<CleanupResult>;
  /**
   * Puts a save point into a repository: what that lacks of it is transferred, and the snapshot is written last. While a
   * promised repository is opened, the save is prepared; whoever opened it closes it. `not_found`, `damaged` (nothing damaged is passed on), `busy`, `no_space`, `interrupted`; all can be repeated.
   */
  createBackup(
    into: BackupRepository | Promise<BackupRepository>,
    options?: CreateBackupOptions,
  ): Promise<CreateBackupResult>;
  /**
   * Makes the folder equal to a snapshot: its content comes into the workspace's store as a point, which is restored as any
   * other is. `not_found`, `ambiguous`, `damaged`; `refused` for a snapshot that is not of one folder. Where
   * another program made it, what the snapshot does not have stays.
   */
  restoreBackup(
    from: BackupRepository,
    snapshot: string,
    options?: RestoreInPlaceOptions,
  ): Promise<RestoreInPlaceResult>;
  /** Save, run, save. */
  run(command: readonly string[], options?: RunOptions): Promise<RunResult>;
  doctor(options?: DoctorOptions): Promise<DoctorResult>;
  store(options?: CallOptions): Promise<StoreInfo>;
  /** What a cleanup without rules of its own goes by, and a save that meets the quota. */
  policy(options?: CallOptions): Promise<PolicyResult>;
  setPolicy(policy: PolicyEdit, options?: CallOptions): Promise<PolicyResult>;
  /**
   * Changes how further points hold content; those that are there stay what they are. For `btrfs-snapshot` a plain
   * folder on btrfs is made a subvolume in place. `unsupported`; for that also `refused`, `permission`, `conflict`.
   */
  setEngine(type: EngineType, options?: EngineOptions): Promise<EngineResult>;
  /** Seals what is only held; how many points that were. */
  seal(options?: WorkspaceCallOptions): Promise<{ sealed: number }>;
  /**
   * From now on seals what is only held whenever no call of this client was under way for so long (default 2000 ms); the
   * next call stops it, and `close` ends it. It keeps no process from ending.
   */
  sealWhenIdle(options?: SealWhenIdleOptions): void;
  /** Shortest unique prefixes, at least 8 digits, among all points of the control directory; unknown ids likewise. */
  shortIds(ids: readonly SavePointId[], options?: CallOptions): Promise<string[]>;
  /** Stops keeping the folder, whose files stay as they are. */
  release(options?: ReleaseOptions): Promise<ReleaseResult>;
  /** Resolves when nothing goes on any more: no sealing, and no removal of a tree that a restore has displaced. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** What needs no open control directory. All paths absolute or relative to the current directory. */
export interface CairnLibrary {
  /** The best engine there, of a workspace the one that it has. Never fails on an existing path and leaves nothing behind. */
  detectEngine(path: string, options?: CallOptions): Promise<EngineResult>;
  /** Resolves when that engine works there, else `unsupported` with the reason and what would help. */
  validateEngine(path: string, type: EngineType, options?: CallOptions): Promise<void>;
  /** Self-contained: `<path>/main` and `<path>/.cairn`. `already_exists` unless absent or empty. */
  init(path: string, options?: InitOptions): Promise<Client>;
  /** The folder becomes the workspace `main`; nothing moves. `already_exists` when it is one, `refused` by a guard. */
  adopt(path: string, options?: AdoptOptions): Promise<Client>;
  /** Exactly that control directory, workspace or self-contained root. `not_a_workspace`. */
  open(path: string, options?: OpenOptions): Promise<Client>;
  /** `open`, or `init` when there is nothing; any number of processes at once end with one id. */
  openOrInit(path: string, options?: InitOptions): Promise<Client>;
  /** `open`, or `adopt` when there is nothing; race-safe likewise. */
  openOrAdopt(path: string, options?: AdoptOptions): Promise<Client>;
  /** The nearest initialised folder at or above path, or null. */
  find(path: string, options?: CallOptions): Promise<string | null>;
  /** An empty repository in restic's format. `already_exists`, `permission`. */
  initRepository(options: InitRepositoryOptions): Promise<BackupRepository>;
  /** `not_found` when there is none, `wrong_password`, `usage` for a location that no storage is known by. */
  openRepository(options: RepositoryOptions): Promise<BackupRepository>;
  /** A receipt that a restore wrote. `damaged` when its signature is not right, `conflict` for another key than the one named. */
  verifyReceipt(path: string, options?: VerifyReceiptOptions): Promise<VerifyReceiptResult>;
  inspect(file: string, options?: InspectOptions): Promise<InspectResult>;
  listWorkspaces(options?: CallOptions): Promise<WorkspaceInfo[]>;
  /**
   * The folder was moved from one path to the other; its points follow. With `controlDirectory` that one was moved too,
   * or only that, where both paths are the same. `not_found`, `conflict` when it is another folder.
   */
  relocate(oldPath: string, newPath: string, options?: RelocateOptions): Promise<RelocateResult>;
  /** Forgets where a folder's points lay, when they are gone for good. False: it was not known. `conflict` when they are there. */
  forget(path: string, options?: CallOptions): Promise<boolean>;
}
