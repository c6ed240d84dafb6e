import type { SavePointId } from "../../ids.ts";
import type { GuardName } from "../../workspace/guard-name.ts";
import type { Progress } from "../../workspace/progress.ts";

export type { GuardName, Progress };
export type { ProgressPhase } from "../../workspace/progress.ts";

/** What every call takes, save points, saving and restoring. */

// ---------------------------------------------------------------------------------------------- words

export type EngineType = "btrfs-snapshot" | "juicefs-clone" | "reflink-copy" | "copy";
export type IntegrityState = "verified" | "unverified" | "damaged" | "unknown";
export type Consistency = "transaction-consistent" | "crash-consistent" | "torn-possible" | "rules-not-applied";
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

/**
 * A callback that throws, or whose promise fails, changes nothing of its call: the process is warned of the first time
 * (`CairnWarning`), and the call goes on.
 */
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
  /** Which parts could not be read, e.g. `["xattrs"]`, where the rest was at rest. */
  aspects?: Aspect[];
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
  /** False while only a held tree has its content: digests and counts are not known then. */
  sealed: boolean;
  /** Number of recorded entries, without the root; null until sealed. */
  entries: number | null;
  /** Sum of the sizes of its files; null until sealed. */
  bytes: number | null;
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
  | "excluded" // by a save, as it is what that was told to leave out: a cache, a large file
  | "not_permitted" // the right to set owner, mode, attribute, device, … is missing; `aspects` says which
  | "unsupported"
  | "not_saved" // kept in place because the undo point does not hold it whole
  | "keep_present" // kept in place because what the target does not have was to stay
  | "taken_out" // of the snapshot, after it was made; what is there stays
  | "changed_since"; // kept in place because it changed after it was saved

export type Aspect = "content" | "mode" | "type" | "owner" | "times" | "xattrs" | "target" | "links";

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

export interface SaveOptions extends WorkspaceCallOptions {
  message?: string;
  tags?: readonly string[];
  /** Default `{kind: "person"}`. */
  cause?: Cause;
  /** `refuse` fails with `detached` when head is not the latest point; default `continue`. */
  onDetached?: "continue" | "refuse";
  /**
   * Nothing changed since head: return head, make no point. Where a held tree is made in one moment, one is also made of
   * a folder in which the same was written again, as long as nobody has asked what head holds.
   */
  skipUnchanged?: boolean;
  /** Read every file, whatever the stat cache says. */
  reread?: boolean;
  /** gitignore patterns, beside those of `.cairnignore`; also the whole path of something in the folder, `./x` being `/x`. */
  exclude?: readonly string[];
  /** Of folders with a valid `CACHEDIR.TAG` leave out all but that. What is found becomes excludes of the point. */
  excludeCaches?: boolean;
  /** Of folders with an entry `NAME`, or a file that begins with `HEADER`, leave out all but that: `NAME[:HEADER]`. */
  excludeIfPresent?: readonly string[];
  /** Leave out files of more bytes. */
  excludeLargerThan?: number;
  /** Go into other file systems that are mounted inside. */
  crossMounts?: boolean;
  allow?: readonly GuardName[];
}

/** The point, with what only this call knows. The CLI prints the point as `save_point` and the rest beside it. */
export interface SaveResult extends SavePoint {
  /** False: nothing had changed, so no point was made and this one is head's. */
  made: boolean;
  /** Against head; null where the tree was held without being read. */
  changes: Changes | null;
  read_bytes: number;
  duration_ms: number;
  /** What the point does not hold; exit 10 when `complete` is false. */
  left_out: LeftOut[];
}

// ---------------------------------------------------------------------------------------- restore, undo

/** How a folder gets its new state, where the engine leaves a choice. */
export interface MethodOption {
  /**
   * `exchange`: whole trees change places also where it cannot be known whether a process has something in the folder
   * open. `entries`: never. Absent: whole trees where it is known that nobody has. What is not possible goes entry by
   * entry; the result says how it was.
   */
  method?: "exchange" | "entries";
}

export interface UndoOptions extends WorkspaceCallOptions, MethodOption {}

export interface RestoreOptions extends WorkspaceCallOptions, MethodOption {
  /** A full id, any unique prefix, `latest`, `head`, `head~N`. */
  target: string;
  /** Only these and what is under them. Absent from the target: they are removed. In neither: `not_found`. */
  paths?: readonly PathInput[];
  /** True: entries that the target does not have stay. Default false: they go, after they were saved. */
  keepPresent?: boolean;
  /** Write into this folder instead (absolute; absent or empty, else `already_exists`); the workspace is not touched. */
  to?: string;
  /** With `to`: `space` writes also where there seems to be too little. */
  allow?: readonly GuardName[];
  /** Why, for the point that is made of the present. */
  cause?: Cause;
}

export interface RestoreChanges {
  created: number;
  updated: number;
  deleted: number;
  /** Entries whose content was right and whose mode, owner, times or attributes were set; no directory of which only the time is set, as entries come or go in it. */
  metadata: number;
}

export interface RestoreResult {
  /** Null when there was nothing to restore to (`restoreLatest` without points). */
  restored_to: SavePointId | null;
  /** `restore` to it brings the state before this call back. Null when the folder was not touched. */
  undo_id: SavePointId | null;
  /** Null where whole trees changed places: nothing was compared. */
  changes: RestoreChanges | null;
  /** Not empty: exit 10. */
  left_out: LeftOut[];
  /**
   * With `paths`: entries that are files of their own now, since other names that they had were not asked for and are not
   * what they were.
   */
  unlinked: NamedPath[];
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
  /** As of {@link RestoreResult}, as far as it is known beforehand and where it goes entry by entry: what is kept, and what the point lacks. */
  left_out: LeftOut[];
  holders: Holder[];
}
