/**
 * Every input and output of the library, as types. The objects with snake_case names are at once what the library
 * returns and what `--json` prints (docs/json.md); options are ours and are camelCase.
 *
 * Units: sizes in bytes, durations in milliseconds, instants as ISO 8601 in UTC (`2026-11-20T09:10:11.123Z`).
 * Paths are relative to the workspace's root, without a leading `./` or `/`, unless said otherwise. A path that is
 * not UTF-8 is given with replacement characters and has its exact bytes in base64 beside it (`…_b64`).
 * Errors are always `CairnError`; the codes named here are those a caller may want to tell apart.
 */
import type { ErrorCode } from "../errors.ts";
import type { ControlId, SavePointId, WorkspaceId } from "../ids.ts";

// ---------------------------------------------------------------------------------------------- words

export type EngineType = "btrfs-snapshot" | "juicefs-clone" | "reflink-copy" | "copy";
export type IntegrityState = "verified" | "unverified" | "damaged" | "unknown";
export type Consistency = "transaction-consistent" | "crash-consistent" | "torn-possible";
export type EntryKind = "file" | "directory" | "symlink" | "fifo" | "socket" | "chardev" | "blockdev";

/** A path as text, or its raw bytes where it is not UTF-8. */
export type PathInput = string | Uint8Array;

export interface NamedPath {
  path: string;
  /** Only where the path is not UTF-8. */
  path_b64?: string;
}

/** What led to a save point. Further keys are kept as they are given; at most 64 KiB as JSON. */
export interface Cause {
  kind: "person" | "tool_call" | "command" | "schedule" | "restore" | "undo" | (string & {});
  [key: string]: unknown;
}

// ---------------------------------------------------------------------------------- options of every call

export type ProgressPhase =
  | "waiting" // for another process's lock; `current` names the holder
  | "recovering"
  | "scanning"
  | "storing"
  | "trees"
  | "committing"
  | "planning"
  | "restoring"
  | "verifying"
  | "cleaning"
  | "compacting"
  | "repairing";

/** At most about ten a second; `done` counts entries (points in cleanup) and never falls within one phase. */
export interface Progress {
  phase: ProgressPhase;
  done: number;
  /** Absent while it is not known. */
  total?: number;
  /** Bytes handled so far in this phase. */
  bytes?: number;
  /** What is being worked on: a path, a point, the holder of a lock. */
  current?: string;
}

export interface CallOptions {
  /** Seen within 100 ms; the call then fails with `interrupted`, the state exactly old or exactly new. */
  signal?: AbortSignal;
  onProgress?: (progress: Progress) => void;
  /** Something worth a line that is no failure; goes to `warnings[]` of the envelope. */
  onWarning?: (message: string) => void;
  /** How long to wait for another writer, default 10 000; then `busy` (retryable), which names the holder. */
  lockTimeoutMs?: number;
}

export interface WorkspaceCallOptions extends CallOptions {
  /** Default: the workspace that was opened, else `main`. Unknown: `not_found`. */
  workspaceName?: string;
}

// ------------------------------------------------------------------------------------------- save points

export interface PathLabel extends NamedPath {
  label: Consistency;
  reason?: string;
}

export interface Degradation {
  /** What was wanted, e.g. `engine`, `holes`, `exact-times`. */
  what: string;
  reason: string;
}

export interface SavePoint {
  save_point_id: SavePointId;
  workspace_name: string;
  created_at: string;
  /** Its place in the order of the workspace, from 1; not contiguous after a cleanup. */
  sequence: number;
  /** Empty when none was given. */
  message: string;
  tags: string[];
  engine: EngineType;
  /** The state digest, 64 hex digits; null until sealed. */
  payload_root_hash: string | null;
  /** SHA-256 of the descriptor's bytes, 64 hex digits. */
  descriptor_checksum: string;
  integrity_state: IntegrityState;
  parent_id: SavePointId | null;
  /** Set when the workspace stood at an older point when this one was made: that point. */
  restored_from: SavePointId | null;
  cause: Cause;
  metadata_digest: string | null;
  /** Number of recorded entries, without the root. */
  entries: number;
  /** Sum of the sizes of its files. */
  bytes: number;
  /** What this point added to the store. */
  bytes_stored: number;
  /** True when nothing had changed since its parent. */
  unchanged: boolean;
  /** False when something could not be recorded (unreadable, changing); such a point proves nothing. */
  complete: boolean;
  pinned: boolean;
  labels: PathLabel[];
  effective_engine: EngineType;
  degraded: Degradation[];
}

/** A point whose descriptor cannot be read; listed, hides nothing. */
export interface DamagedPoint {
  /** As far as its name tells. */
  save_point_id: SavePointId | null;
  detail: string;
  hint: string;
}

export type LeftOutReason =
  | "unreadable"
  | "damaged" // the store does not hold it whole any more
  | "changing"
  | "vanished"
  | "mounted" // another file system mounted inside; listed, does not make a point incomplete
  | "not_permitted" // the right to set owner, mode, attribute, device, … is missing; `aspects` says which
  | "unsupported"
  | "not_saved" // kept in place because the undo point does not hold it whole
  | "changed_since"; // kept in place because it changed after it was saved

export interface LeftOut extends NamedPath {
  reason: LeftOutReason;
  detail: string;
  /** Which parts were not set, e.g. `["owner"]`; absent when it is the whole entry. */
  aspects?: Aspect[];
}

/** Counts. Metadata alone, times too, counts as modified. */
export interface Changes {
  added: number;
  modified: number;
  removed: number;
}

/**
 * Guards that can be overridden by name: `home` a home directory, `nested` inside or above another workspace,
 * `git` inside a `.git`, `space` less free space than the estimate. `/`, `/.cairn` and a control directory cannot.
 */
export type GuardName = "home" | "nested" | "git" | "space";

export interface SaveOptions extends WorkspaceCallOptions {
  message?: string;
  tags?: readonly string[];
  /** Default `{kind: "person"}`. */
  cause?: Cause;
  /** `refuse` fails with `detached` when head is not the latest point; default `continue`. */
  onDetached?: "continue" | "refuse";
  /** Nothing changed since head: return head, make no point. */
  skipUnchanged?: boolean;
  /** Read every file, whatever the stat cache says. */
  reread?: boolean;
  /** gitignore patterns, beside those of `.cairnignore`. */
  exclude?: readonly string[];
  /** Go into other file systems that are mounted inside. */
  crossMounts?: boolean;
  allow?: readonly GuardName[];
}

/** The point, with what only this call knows. The CLI prints the point as `save_point` and the rest beside it. */
export interface SaveResult extends SavePoint {
  changes: Changes;
  read_bytes: number;
  duration_ms: number;
  /** What the point does not hold; exit 10 when `complete` is false. */
  left_out: LeftOut[];
}

// ---------------------------------------------------------------------------------------- restore, undo

export interface RestoreOptions extends WorkspaceCallOptions {
  /** A full id, any unique prefix, `latest`, `head`, `head~N`. */
  target: string;
  /** Only these and what is under them. Absent from the target: they are removed. In neither: `not_found`. */
  paths?: readonly PathInput[];
  /** True: entries that the target does not have stay. Default false: they go, after they were saved. */
  keepPresent?: boolean;
  /** Write into this folder instead (absolute; absent or empty, else `already_exists`); the workspace is not touched. */
  to?: string;
  /** Why, for the point that is made of the present. */
  cause?: Cause;
}

export interface RestoreChanges {
  created: number;
  updated: number;
  deleted: number;
  /** Entries whose content was right and whose mode, owner, times or attributes were set. */
  metadata: number;
}

export interface RestoreResult {
  /** Null when there was nothing to restore to (`restoreLatest` without points). */
  restored_to: SavePointId | null;
  /** `restore` to it brings the state before this call back. Null when the folder was not touched. */
  undo_id: SavePointId | null;
  changes: RestoreChanges;
  /** Not empty: exit 10. */
  left_out: LeftOut[];
  method: "exchange" | "entries";
  duration_ms: number;
}

export interface PlanEntry extends NamedPath {
  action: "create" | "update" | "delete" | "metadata" | "keep";
  kind: EntryKind;
  /** Bytes to be written. */
  size?: number;
  /** Why it would be kept. */
  reason?: LeftOutReason;
}

/** A process that has a file of the workspace open for writing. */
export interface Holder extends NamedPath {
  pid: number;
  command: string;
}

/** What a restore would do now; nothing was changed and nothing saved. */
export interface RestorePlan {
  id: string;
  restored_to: SavePointId;
  entries: PlanEntry[];
  holders: Holder[];
}

// ------------------------------------------------------------------------------------ status, diff, show

export interface WorkspaceRef {
  name: string;
  /** Absolute. */
  path: string;
  path_b64?: string;
  id: WorkspaceId;
  engine: EngineType;
  /** Absolute. */
  control_directory: string;
}

export interface EngineReason {
  engine: EngineType;
  chosen: boolean;
  /** Why it was chosen or passed over. */
  reason: string;
  /** What would make it usable, where something would. */
  hint?: string;
}

export interface Recovered {
  /** What was interrupted: `save`, `restore`, `cleanup`, `compaction`, … */
  operation: string;
  outcome: "completed" | "rolled_back";
  detail: string;
  /** Paths that were edited after the interruption and so were left as they are. */
  kept: NamedPath[];
}

export interface StatusResult {
  workspace: WorkspaceRef;
  clean: boolean;
  changes: Changes;
  head: SavePointId | null;
  latest: SavePointId | null;
  detached: boolean;
  engine: EngineType;
  engine_reasons: EngineReason[];
  degraded: Degradation[];
  holders: Holder[];
  /** What the ignore rules hide now: entries at which the walk stopped, at most 100. */
  ignored: NamedPath[];
  store: { bytes: number; points: number };
  recovered: Recovered[];
  last_save_at: string | null;
  last_backup_at: string | null;
  last_proof_at: string | null;
}

export type Aspect = "content" | "mode" | "type" | "owner" | "times" | "xattrs" | "target" | "links";

export interface DiffEntry extends NamedPath {
  change: "added" | "removed" | "modified" | "renamed";
  kind: EntryKind;
  /** What differs; empty for added and removed. */
  aspects: Aspect[];
  from_path?: string;
  from_path_b64?: string;
  size_before?: number;
  size_after?: number;
}

export interface DiffOptions extends WorkspaceCallOptions {
  paths?: readonly PathInput[];
}

export interface DiffResult {
  from: SavePointId;
  /** Null: the folder as it is now. */
  to: SavePointId | null;
  /** In order of their paths' bytes. */
  entries: DiffEntry[];
}

export interface ListedEntry extends NamedPath {
  kind: EntryKind;
  /** Permission bits with setuid, setgid and sticky. */
  mode: number;
  /** Files only. */
  size: number;
  modified_at: string;
  uid: number;
  gid: number;
  user: string;
  group: string;
  /** Links only; as text. */
  target?: string;
  target_b64?: string;
}

/** `entries`: a directory's children, not deeper; for anything else the one entry itself. */
export interface ShowResult extends NamedPath {
  save_point: SavePoint;
  kind: EntryKind;
  entries: ListedEntry[];
}

// ------------------------------------------------------------------------------- history, verify, cleanup

export interface HistoryOptions extends CallOptions {
  /** Text that the message, a tag or the cause contains; case does not matter. */
  grep?: string;
  tag?: string;
  /** Only points in which this path differs from the parent. */
  path?: PathInput;
}

export interface HistoryResult {
  /** Newest first. */
  save_points: SavePoint[];
  head: SavePointId | null;
  latest: SavePointId | null;
  damaged: DamagedPoint[];
  /** True when the limit left something out. */
  truncated: boolean;
}

export interface VerifyProblem {
  point: SavePointId | null;
  path?: string;
  path_b64?: string;
  /** `descriptor`, `snapshot`, `tree`, `content`, `digest`, `pack`, `index`, … */
  kind: string;
  detail: string;
  hint: string;
}

/** Problems are a result, not an exception; the CLI exits 6 when there are any. */
export interface VerifyResult {
  checked: { points: number; files: number; bytes: number };
  problems: VerifyProblem[];
}

/** restic's meaning of each word. Durations like `30d`, `2w`, `12h`, `1y6m`. Sizes in bytes. */
export interface Retention {
  /** Restore and undo points; default `{count: 20, within: "30d"}`. They count for no other rule. */
  keepUndo?: { count?: number; within?: string };
  keepLast?: number;
  keepWithin?: string;
  keepHourly?: number;
  keepDaily?: number;
  keepWeekly?: number;
  keepMonthly?: number;
  keepYearly?: number;
  keepTags?: readonly string[];
  maxBytes?: number;
  maxAge?: string;
}

export interface CleanupOptions extends WorkspaceCallOptions {
  /** Default: the policy that was set; without one only undo points are candidates. */
  retention?: Retention;
  /** Exactly these points instead of a retention: ids or prefixes. Pinned ones: `refused`. */
  only?: readonly string[];
}

export interface PolicyResult {
  /** Null: never set, everything is kept. */
  retention: Retention | null;
  /** Of the whole control directory. Null: 20 % of the file system. */
  quota_bytes: number | null;
}

/** An absent key stays as it is, null takes the setting away. */
export interface PolicyEdit {
  retention?: Retention | null;
  quotaBytes?: number | null;
}

export interface CleanupReason {
  save_point_id: SavePointId;
  keep: boolean;
  /** The rules that keep it, e.g. `["pinned", "last"]`; for a dropped one what drops it. */
  reasons: string[];
}

export interface CleanupPlan {
  plan_id: string;
  created_at: string;
  protected_save_points: SavePointId[];
  /** How many of them are protected as head, latest or for undo. */
  protected_by_history: number;
  candidate_count: number;
  reclaimable_save_points: SavePointId[];
  /** Content that no other point holds. */
  reclaimable_bytes_estimate: number;
  reasons: CleanupReason[];
}

export interface CleanupResult {
  removed: SavePointId[];
  bytes_freed: number;
}

// ------------------------------------------------------------------------------------- fork, view, run

export interface ForkOptions extends WorkspaceCallOptions {
  /** Default: the folder's name, made unique. */
  name?: string;
  /** A control directory of its own. */
  standalone?: boolean;
  allow?: readonly GuardName[];
}

export interface ForkResult {
  workspace: WorkspaceRef;
  started_from: SavePointId;
  /** First point of the new workspace. */
  save_point: SavePoint;
  left_out: LeftOut[];
}

/** A read-only tree to look into. Its point is safe from cleanup until it is closed. */
export interface ViewLease {
  view_id: string;
  save_point_id: SavePointId;
  /** Absolute. */
  path: string;
  opened_at: string;
  /** `copy`: the files were written there; the engines that clone have cheaper ways. */
  method: string;
}

export interface RunOptions extends WorkspaceCallOptions {
  message?: string;
  tags?: readonly string[];
  /** Keys that are added to the cause of the second point. */
  cause?: Record<string, unknown>;
  /** Where the command runs, absolute; default: the workspace's root. */
  cwd?: string;
  /** `inherit` (default), or `stderr`: the command's stdout goes to our standard error. */
  stdout?: "inherit" | "stderr";
  /** `started` just before, `ended` just after the command. Between them a signal is the command's business. */
  onCommand?: (event: "started" | "ended", pid: number) => void;
}

/** A failure before the command is thrown and the command was not started; one after it is in `after_error`. */
export interface RunResult {
  command: string[];
  before: SavePoint;
  after: SavePoint | null;
  /** 128 + signal number when a signal ended it; 127 or 126 when it could not be started. */
  exit_code: number;
  signal: string | null;
  /** Of the command alone. */
  duration_ms: number;
  changes: Changes | null;
  after_error: { code: ErrorCode; message: string; hint?: string } | null;
}

// ------------------------------------------------------------------------ doctor, store, inspect, workspaces

export interface DoctorOptions extends WorkspaceCallOptions {
  /** Do what the findings' `repair` says; without it nothing is changed. */
  repair?: boolean;
  /** Take over another host's lock even when its heartbeat cannot be judged. */
  breakLocks?: boolean;
}

export interface Finding {
  kind: string;
  severity: "info" | "warning" | "damage";
  detail: string;
  /** What `--repair` does about it; absent when nothing can be done by itself. */
  repair?: string;
  /** Set by a repairing run. */
  repaired?: boolean;
}

export interface DoctorResult {
  /** No finding of severity `damage` is left; false: exit 6. */
  healthy: boolean;
  findings: Finding[];
}

export interface StoreInfo {
  /** Absolute; what restic's `-r` takes. */
  repository: string;
  password_file: string;
  repository_id: string;
  /** Ready for a shell, quoted: lists the snapshots. */
  restic_command: string;
  bytes: number;
  points: number;
}

export interface InspectOptions extends CallOptions {
  /** For a sealed file that lies outside a store. */
  passwordFile?: string;
}

/** Any file that Cairn writes, decoded. Unknown content: `unsupported`. */
export interface InspectResult {
  path: string;
  /** e.g. `save-point-descriptor`, `stat-cache`, `restic-index`. */
  format: string;
  version: number | null;
  bytes: number;
  /** As JSON; secrets are left out. Long lists are cut at 1000 and say so. */
  content: unknown;
}

export interface WorkspaceInfo extends WorkspaceRef {
  /** False: the folder is gone or is another one. */
  present: boolean;
  points: number;
  /** Of the store, shared by all workspaces of one control directory. */
  store_bytes: number;
  last_save_at: string | null;
  /** Why the rest could not be read, when it could not. */
  problem?: string;
}

export interface RelocateResult {
  workspace: WorkspaceRef;
  from: string;
}

export interface ReleaseOptions extends WorkspaceCallOptions {
  /** Remove the points and, with the last workspace, the control directory. */
  deletePoints?: boolean;
}

export interface ReleaseResult {
  workspace: WorkspaceRef;
  /** 0 when they were kept. */
  points_deleted: number;
  bytes_freed: number;
}

export interface EngineResult {
  path: string;
  engine: EngineType;
  engine_reasons: EngineReason[];
}

// -------------------------------------------------------------------------------------------- the library

export interface InitOptions extends CallOptions {
  /** Of the whole; letters, digits, `-`, `_`. Default: the folder's name. */
  name?: string;
  /** Absent: the best that works there. */
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

/** One open control directory, with one of its workspaces in hand. Every target may be an id, a prefix, `latest`, `head`, `head~N`. */
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
  /** Absolute. Unknown: `not_found`. */
  workspacePath(name?: string): string;

  /** One save point of the folder as it is. `busy`, `no_space`, `refused`, `detached`, `interrupted`. */
  save(options?: SaveOptions): Promise<SaveResult>;
  /** Saves the present, then makes the folder equal to the target. `not_found`, `ambiguous`, `damaged`. */
  restore(options: RestoreOptions): Promise<RestoreResult>;
  planRestore(options: RestoreOptions): Promise<RestorePlan>;
  /** Back to before the last restore or undo. `nothing_to_undo`. */
  undo(options?: WorkspaceCallOptions): Promise<RestoreResult>;
  planUndo(options?: WorkspaceCallOptions): Promise<RestorePlan>;
  /** To head, the present saved first when it differs; nothing saved → nothing done, `restored_to: null`. */
  restoreLatest(workspaceName?: string, options?: CallOptions): Promise<RestoreResult>;

  /** Limit ≤ 0 or absent: all. */
  history(workspaceName?: string, limit?: number, options?: HistoryOptions): Promise<HistoryResult>;
  latestSavePoint(workspaceName?: string): Promise<SavePoint | null>;
  hasSavePoints(workspaceName?: string): Promise<boolean>;
  /** The one point that a target means. `not_found`, `ambiguous`, `invalid_id`. */
  resolve(target: string, options?: WorkspaceCallOptions): Promise<SavePoint>;
  status(options?: WorkspaceCallOptions): Promise<StatusResult>;
  /** From a to b; b absent or null: the folder as it is now. */
  diff(a: string, b?: string | null, options?: DiffOptions): Promise<DiffResult>;
  /** Path absent or empty: the root. `not_found`. */
  show(target: string, path?: PathInput, options?: WorkspaceCallOptions): Promise<ShowResult>;
  /** A file's content in order, in pieces of at most 1 MiB. Target null: the folder as it is now. `not_found`, `damaged`; `conflict` for what is no file. */
  read(target: string | null, path: PathInput, options?: WorkspaceCallOptions): AsyncIterable<Uint8Array>;

  verify(target: string, options?: WorkspaceCallOptions): Promise<VerifyResult>;
  /** Every point of every workspace and the store itself. */
  verifyAll(options?: CallOptions): Promise<VerifyResult>;
  /** Target: an absolute path that is absent or an empty folder. `already_exists`, `refused`. */
  fork(target: string, path: string, options?: ForkOptions): Promise<ForkResult>;
  view(target: string, options?: WorkspaceCallOptions): Promise<ViewLease>;
  listViews(): Promise<ViewLease[]>;
  /** Unknown: `not_found`. */
  closeView(viewId: string): Promise<ViewLease>;
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
  /** Save, run, save. */
  run(command: readonly string[], options?: RunOptions): Promise<RunResult>;
  doctor(options?: DoctorOptions): Promise<DoctorResult>;
  store(options?: CallOptions): Promise<StoreInfo>;
  /** What a cleanup without rules of its own goes by, and a save that meets the quota. */
  policy(options?: CallOptions): Promise<PolicyResult>;
  setPolicy(policy: PolicyEdit, options?: CallOptions): Promise<PolicyResult>;
  /** Shortest unique prefixes, at least 8 digits, among all points of the control directory; unknown ids likewise. */
  shortIds(ids: readonly SavePointId[]): Promise<string[]>;
  /** Stops keeping the folder, whose files stay as they are. */
  release(options?: ReleaseOptions): Promise<ReleaseResult>;
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** What needs no open control directory. All paths absolute or relative to the current directory. */
export interface CairnLibrary {
  /** Never fails on an existing path and leaves nothing behind. */
  detectEngine(path: string): Promise<EngineResult>;
  /** Resolves when that engine works there, else `unsupported` with the reason and what would help. */
  validateEngine(path: string, type: EngineType): Promise<void>;
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
  find(path: string): Promise<string | null>;
  inspect(file: string, options?: InspectOptions): Promise<InspectResult>;
  listWorkspaces(options?: CallOptions): Promise<WorkspaceInfo[]>;
  /** The folder was moved from one path to the other; its points follow. `not_found`, `conflict` when it is another folder. */
  relocate(oldPath: string, newPath: string, options?: CallOptions): Promise<RelocateResult>;
  /** Forgets where a folder's points lay, when its control directory is gone for good. False: it was not known. `conflict` when it is there. */
  forget(path: string): Promise<boolean>;
}
