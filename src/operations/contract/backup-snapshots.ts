import type { SavePointId } from "../../ids.ts";
import type { Incomplete } from "./looking.ts";
import type { CallOptions, GuardName, LeftOut, SaveOptions, WorkspaceCallOptions } from "./points.ts";

/** What a snapshot of a repository is, which ones are meant, and how one is made. */

export interface RepositoryInfo {
  /** Where it lies; never with a secret in it. */
  location: string;
  repository_id: string;
  version: number;
}

export interface BackupSnapshot {
  snapshot_id: string;
  /** Of the state, not of the upload. */
  created_at: string;
  /** When its upload ended, where its writer says so. */
  uploaded_at: string | null;
  hostname: string;
  username: string;
  paths: string[];
  /** Without the one that names the save point. */
  tags: string[];
  tree: string;
  parent: string | null;
  program_version: string | null;
  /** Null where it was made of something else than a save point. */
  save_point_id: SavePointId | null;
  /** Entries of files and bytes that it holds, where its writer says so. */
  files: number | null;
  bytes: number | null;
}

export interface SnapshotFilter {
  /** All of these paths, as restic has it. */
  paths?: readonly string[];
  /** Any of these hosts. */
  hosts?: readonly string[];
  /** All tags of any of these lists; an empty list: those without a tag. */
  tags?: readonly (readonly string[])[];
}

export interface SnapshotChoice extends SnapshotFilter {
  /** Exactly these, instead of all that the filter takes; `latest` is the newest of those. */
  snapshots?: readonly string[];
}

export interface ListBackupsOptions extends CallOptions, SnapshotChoice {
  /** Only the newest so many of each host and paths. */
  latest?: number;
}

export interface DamagedSnapshot {
  snapshot_id: string;
  detail: string;
}

/** Newest last, as restic has them. */
export interface BackupList extends RepositoryInfo {
  snapshots: BackupSnapshot[];
  /** Those that cannot be read; they hide no other. */
  damaged: DamagedSnapshot[];
}

// ------------------------------------------------------------------------------------------------ create

export interface CreateBackupOptions
  extends WorkspaceCallOptions, Pick<SaveOptions, "excludeCaches" | "excludeIfPresent" | "excludeLargerThan"> {
  /** A full id, any unique prefix, `latest`, `head`, `head~N`; default `head`. */
  point?: string;
  /** First save the folder as it is; no new point where nothing changed. Excludes `point`. */
  save?: boolean;
  /** Of a point that `save` makes. */
  message?: string;
  /** Patterns of what `save` leaves out; the snapshot names them. */
  exclude?: readonly string[];
  /** As of a save: read every file; go into other file systems mounted inside; override `space`. */
  reread?: boolean;
  crossMounts?: boolean;
  allow?: readonly GuardName[];
  tags?: readonly string[];
  /** Default: this machine's. */
  hostname?: string;
  /** Nothing is written when the newest snapshot of the same host and path holds the same. */
  skipIfUnchanged?: boolean;
  /** Only find out what would be transferred. */
  dryRun?: boolean;
}

/** Of what comes piece by piece; the snapshot holds it as one file. */
export interface StreamBackupOptions
  extends CallOptions, Pick<CreateBackupOptions, "tags" | "hostname" | "skipIfUnchanged" | "dryRun"> {
  /** A name or a path, from `/` in the snapshot; default `stdin`. */
  filename?: string;
}

export interface TransferredSize {
  data_blobs: number;
  tree_blobs: number;
  /** Plain bytes of those blobs. */
  bytes: number;
  /** Bytes of new packs; in a dry run what the blobs take where they are now, of a stream before compression. */
  stored_bytes: number;
  packs: number;
}

export interface CreateBackupResult extends RepositoryInfo {
  /** Null in a dry run, and when it was skipped because nothing changed. */
  snapshot: BackupSnapshot | null;
  save_point_id: SavePointId;
  /** The newest snapshot of the same host and path before this one. */
  parent: string | null;
  /** True when the parent holds the same. */
  unchanged: boolean;
  dry_run: boolean;
  added: TransferredSize;
  /** What the save point, and so the snapshot, lacks of the folder; null where it is whole. */
  incomplete: Incomplete | null;
  /** What `save` left out, as its result says; none without it. */
  left_out: LeftOut[];
  duration_ms: number;
}

/** A stream is no save point. */
export interface StreamBackupResult extends Omit<CreateBackupResult, "save_point_id" | "incomplete"> {
  save_point_id: null;
  incomplete: null;
}

export interface UnreadableSnapshot {
  snapshot_id: string;
  reason: string;
}
