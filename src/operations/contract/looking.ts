import type { SavePointId, WorkspaceId } from "../../ids.ts";
import type { UnverifiedPoint, VerifyProblem } from "../../workspace/verify-problem.ts";
import type {
  Aspect,
  CallOptions,
  Changes,
  DamagedPoint,
  Degradation,
  EngineType,
  EntryKind,
  Holder,
  LeftOut,
  NamedPath,
  PathInput,
  SavePoint,
  WorkspaceCallOptions,
} from "./points.ts";

export type { UnverifiedPoint, VerifyProblem };

/** Status, differences, history, verification and cleanup. */

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
  /** When it was found and finished or taken back; the same for all that one call recovered. */
  at: string;
  /** What was interrupted: `save`, `restore`, `cleanup`, `compaction`, … */
  operation: string;
  outcome: "completed" | "rolled_back";
  detail: string;
  /** Paths that were left as they are: edited after the interruption, or not taken by the file system. */
  kept: NamedPath[];
  /** Of a restore: what it left out, as its result would have said; absent where nothing was. */
  incomplete?: Incomplete;
}

/** What a point lacks of the folder that it was made of, or a folder of the point that it was restored to. */
export interface Incomplete {
  count: number;
  /** The first of them, at most 100. */
  left_out: LeftOut[];
}

export interface StatusResult {
  workspace: WorkspaceRef;
  clean: boolean;
  changes: Changes;
  head: SavePointId | null;
  /** What could not be read, or not while it held still, when head was saved; null when head is complete. */
  head_incomplete: Incomplete | null;
  latest: SavePointId | null;
  detached: boolean;
  engine: EngineType;
  engine_reasons: EngineReason[];
  /** What the engine could not do when `latest` was saved. */
  degraded: Degradation[];
  holders: Holder[];
  /** What the ignore rules hide now: entries at which the walk stopped, at most 100. */
  ignored: NamedPath[];
  store: { bytes: number; points: number };
  /** The last ten, oldest first. */
  recovered: Recovered[];
  last_save_at: string | null;
  last_backup_at: string | null;
  last_proof_at: string | null;
}

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

export interface VerifyOptions extends CallOptions {
  /** Also hash each large file as a whole, and compare with what was recorded; its pieces are always proven. And read the trees that sealed points hold. */
  deep?: boolean;
}

/** Problems are a result, not an exception; the CLI exits 6 when there are any, 10 when only points were not looked at. */
export interface VerifyResult {
  checked: { points: number; files: number; bytes: number };
  problems: VerifyProblem[];
  /** Of `verifyAll`; a single point that cannot be looked at is an error. */
  unverified: UnverifiedPoint[];
}

/** So many, or all that there are. */
export type KeepCount = number | "unlimited";

/** restic's words with restic's meaning; days, weeks, months and years are those of the local time zone. Durations like `30d`, `2w`, `12h`, `1y6m`. */
export interface BackupRetention {
  keepLast?: KeepCount;
  keepWithin?: string;
  keepHourly?: KeepCount;
  keepDaily?: KeepCount;
  keepWeekly?: KeepCount;
  keepMonthly?: KeepCount;
  keepYearly?: KeepCount;
  /** As `keepHourly` and so on, of all periods in that span before the newest. */
  keepWithinHourly?: string;
  keepWithinDaily?: string;
  keepWithinWeekly?: string;
  keepWithinMonthly?: string;
  keepWithinYearly?: string;
  /** Any of these: a tag, or `a,b` for both of them; an empty text is for what has no tags. */
  keepTags?: readonly string[];
}

/** A backup's rules, and those that only save points have. Sizes in bytes. */
export interface Retention extends BackupRetention {
  /** Restore and undo points; default `{count: 20, within: "30d"}`. They count for no other rule. */
  keepUndo?: { count?: number; within?: string };
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
  /**
   * Points that hold a tree come back in one exchange; of so many of a workspace's newest sealed ones the tree stays.
   * Null: 8.
   */
  kept_trees: number | null;
}

/** An absent key stays as it is, null takes the setting away. */
export interface PolicyEdit {
  retention?: Retention | null;
  quotaBytes?: number | null;
  /** 0 to 10 000. What an earlier policy has let go does not come back. */
  keptTrees?: number | null;
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
  /** True: something of points that were removed before is still in the store; running any plan goes on with that. */
  removals_pending: boolean;
}

export interface CleanupResult {
  removed: SavePointId[];
  /** Of the store; what only a held tree took up is known to the file system alone. */
  bytes_freed: number;
  /** False: something that had to go, of points that were asked for (`only`), now or before, is left; a warning says why. */
  complete: boolean;
}
