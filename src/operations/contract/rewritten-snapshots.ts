import type { RepositoryInfo, SnapshotChoice, UnreadableSnapshot } from "./backup-snapshots.ts";
import type { CallOptions, NamedPath } from "./points.ts";
import type { PathPattern } from "./restores.ts";

/** Snapshots that take the place of others: with other tags, without what is lost, or without what is to go. */

export interface TagBackupsOptions extends CallOptions, SnapshotChoice {
  add?: readonly string[];
  remove?: readonly string[];
  /** These and no others, instead of those. */
  set?: readonly string[];
  dryRun?: boolean;
}

export interface TaggedSnapshot {
  snapshot_id: string;
  created_at: string;
  /** The one that took its place; null in a dry run. */
  new_id: string | null;
  tags: string[];
}

export interface TagBackupsResult extends RepositoryInfo {
  dry_run: boolean;
  /** Oldest first. */
  tagged: TaggedSnapshot[];
  /** Of those that were named or chosen, how many have these tags already. */
  unchanged: number;
  duration_ms: number;
}

export interface RepairSnapshotsOptions extends CallOptions {
  /** Ids, prefixes or `latest`; default all. */
  snapshots?: readonly string[];
  /** The old ones go once those that take their place are there. Default false. */
  forget?: boolean;
  /** Only say what would be done. */
  plan?: boolean;
}

export interface RepairSnapshotsResult extends RepositoryInfo {
  /** True: nothing was changed. */
  plan: boolean;
  /** Snapshots that lack nothing. */
  intact: number;
  /** Those that lack something, oldest first. */
  repaired: RepairedSnapshot[];
  /** Snapshots whose own file cannot be read; `forget` them once nothing else helps. */
  unreadable: UnreadableSnapshot[];
  duration_ms: number;
}

export interface RepairedSnapshot {
  snapshot_id: string;
  created_at: string;
  /** The one without what is lost; null in a plan, and where nothing is left. */
  new_id: string | null;
  forgotten: boolean;
  /** Paths from the topmost tree; files go as a whole, directories with all below them. */
  lost: (NamedPath & { kind: "file" | "directory"; detail: string })[];
}

export interface RewriteBackupsOptions extends CallOptions, SnapshotChoice {
  /**
   * What fits one of these goes, with all below it: patterns as those of a restore, by the path from what was saved or the
   * whole one. `usage` for one that everything fits, or a folder that was saved.
   */
  exclude: readonly PathPattern[];
  /** The old ones go once those that take their place are there. Default false. */
  forget?: boolean;
  dryRun?: boolean;
}

export interface RewriteBackupsResult extends RepositoryInfo {
  dry_run: boolean;
  /** Oldest first. */
  rewritten: {
    snapshot_id: string;
    created_at: string;
    /** The one without it; null in a dry run, and where nothing is left. */
    new_id: string | null;
    forgotten: boolean;
    /** Paths from the topmost tree. */
    taken_out: (NamedPath & { kind: "file" | "directory" })[];
  }[];
  /** Of those that were named or chosen, how many have nothing of it. */
  unchanged: number;
  /** Snapshots that stay as they are: their file cannot be read. */
  unreadable: UnreadableSnapshot[];
  /** Ids of those that do because something of them is lost: `repairSnapshots` first. */
  lacking: string[];
  duration_ms: number;
}

export interface RecoverBackupsOptions extends CallOptions {
  /** Recorded as the host's name; default: this machine's. */
  hostname?: string;
  dryRun?: boolean;
}

/** Of a save point or a stream whose snapshot is gone. */
export interface RecoveredSnapshot {
  /** Null in a dry run. */
  new_id: string | null;
  /** The newest time of what is in it: nothing tells when it was saved. */
  created_at: string;
  paths: string[];
  tree: string;
  /** Of all that is in it, `/.cairn` too. */
  files: number;
  bytes: number;
}

export interface RecoverBackupsResult extends RepositoryInfo {
  dry_run: boolean;
  /** One for each save point and stream that is whole, by their trees. */
  recovered: RecoveredSnapshot[];
  /** One snapshot with all other trees; null where there are none. */
  gathered: {
    /** Null in a dry run. */
    new_id: string | null;
    created_at: string;
    /** `path`: in the snapshot; `lost`: how many files and directories it is without, since something of them is lost. */
    trees: { tree: string; path: string; lost: number }[];
  } | null;
  /** Trees that cannot be read: what only they lead to is gathered by itself. */
  unreadable: { tree: string; detail: string }[];
  duration_ms: number;
}
