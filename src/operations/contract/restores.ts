import type { SavePointId } from "../../ids.ts";
import type { CallOptions, LeftOut, PathInput, RestoreResult, WorkspaceCallOptions } from "./points.ts";
import type { RepositoryInfo, SnapshotFilter } from "./backup-snapshots.ts";

/** What comes back out of repositories, and the receipts that prove it. */

/** A pattern with `*`, `?`, `[…]` and `**`, as restic has them. */
export type PathPattern = string | { pattern: string; ignoreCase: boolean };

/** What of a snapshot is wanted; with nothing said all of it. */
export interface PathChoice {
  /**
   * Only what is below this folder, from the root of what was saved, or by its whole path; paths and patterns count from it.
   * A restore into a folder has what lies in it there, without the path that leads to it, one in place has it where it was.
   * `not_found`, `conflict` for what is no folder; no link is followed.
   */
  subfolder?: PathInput;
  /** These and what is under them, from the root of what was saved. One that is not there: `not_found`. */
  paths?: readonly PathInput[];
  /** What fits one of these too, with all that is under it. */
  include?: readonly PathPattern[];
  /** But nothing that fits one of these, nor anything under it. When nothing is left: `not_found`. */
  exclude?: readonly PathPattern[];
}

/**
 * `disk`: past what the system holds of the files in memory, once they are flushed; a tmpfs has nothing else. `memory`: out
 * of that too, without waiting for the disk; it proves what was written, and not that the disk gives it back.
 */
export type ProofSource = "disk" | "memory";

export interface RestoreBackupOptions extends CallOptions, PathChoice {
  /** What `latest` is the newest of; default all snapshots. */
  latestOf?: SnapshotFilter;
  /** At most so many threads write and read; default 2. A process has 4 to 8 for all that waits for other machines, and as many for the rest. */
  jobs?: number;
  /**
   * Whether what was written is read again. Default true for whole snapshots; parts are where it is asked for, and compared
   * entry by entry.
   */
  prove?: boolean;
  /** Where it is read again from; saying so asks for a proof. Default `disk`. */
  proveFrom?: ProofSource;
  /**
   * Where the receipt goes too; it is always kept with the others of this user. A file that is not there yet, outside of
   * the target; `usage` where it is not, or where there will be no receipt.
   */
  receipt?: string;
  /**
   * Blocks of 64 KiB of zeros become holes. Default false. Where a snapshot of Cairn's says which holes a file had, it has
   * those and no others, either way.
   */
  sparse?: boolean;
  /** Only find out how much would be written. */
  dryRun?: boolean;
}

/** What was restored. */
export interface RestoredSnapshot {
  snapshot_id: string;
  created_at: string;
  hostname: string;
}

export interface RestoreBackupResult extends RepositoryInfo, RestoredSnapshot {
  save_point_id: SavePointId | null;
  /** Absolute. */
  target: string;
  dry_run: boolean;
  entries: number;
  bytes: number;
  /** Of these, what a restore of the same that was killed had written already. */
  kept_bytes: number;
  /** Not empty: exit 10. */
  left_out: LeftOut[];
  proof: RestoreProof | null;
  /**
   * True with a proof; without one, where everything that is not left out was read again and is what the snapshot has:
   * kind, mode, content and link target of each entry. False where that was not asked for or could not be told.
   */
  read_again: boolean;
  /** Where it was read again from: `memory` too where the system cannot be told to read past that. Null where it was not. */
  read_from: ProofSource | null;
  /** Files of which nothing tells any more whether they are what was saved; null where nothing was read again. */
  untold_files: number | null;
  duration_ms: number;
}

export interface RestoreInPlaceOptions extends WorkspaceCallOptions, PathChoice {
  /** What `latest` is the newest of; default the snapshots of the workspace's folder. */
  latestOf?: SnapshotFilter;
  /** True: entries that the snapshot does not have stay; so they do wherever patterns choose. */
  keepPresent?: boolean;
  /** Whether the folder is read again afterwards. Default true for whole snapshots, unless `keepPresent`; else compared entry by entry. */
  prove?: boolean;
  /** Likewise. */
  proveFrom?: ProofSource;
  /** Where the receipt goes too; likewise. */
  receipt?: string;
  /** At most so many threads read it again; default 2. */
  jobs?: number;
  /** Likewise. */
  sparse?: boolean;
  /** Only find out what would change. */
  dryRun?: boolean;
}

/** A restore of a workspace, `restored_to` being the point that now holds the snapshot's content there; null in a dry run. */
export interface RestoreInPlaceResult extends RepositoryInfo, RestoreResult, RestoredSnapshot {
  /** The folder, absolute. */
  target: string;
  dry_run: boolean;
  /** What it added to the workspace's store; null in a dry run. */
  stored_bytes: number | null;
  proof: RestoreProof | null;
  /** As of {@link RestoreBackupResult}; what is otherwise is listed in `left_out`, as it stays in place. */
  read_again: boolean;
  read_from: ProofSource | null;
  untold_files: number | null;
}

/** What was read back is the state that was saved. */
export interface RestoreProof {
  state_digest: string;
  /** True when owners, times and attributes are those that were saved, too. */
  metadata_equal: boolean;
  /** The file, absolute; null where the snapshot records no digest that could be signed for. */
  receipt: string | null;
}

export interface VerifyReceiptOptions extends CallOptions {
  /** The public key that it must be signed with, in base64 or hex, or a file with it. */
  key?: string;
}

export interface VerifyReceiptResult {
  path: string;
  /** True: by the key that was named, or this user's own. False: only by the one that it brings along. */
  trusted: boolean;
  public_key: string;
  /** The receipt's own words, decoded. */
  receipt: Record<string, unknown>;
  /** SHA-256 of the file. */
  sha256: string;
}
