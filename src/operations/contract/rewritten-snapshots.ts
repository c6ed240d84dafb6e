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
