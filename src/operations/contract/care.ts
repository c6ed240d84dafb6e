import type { ErrorCode } from "../../errors.ts";
import type { SavePointId } from "../../ids.ts";
import type { EngineReason, WorkspaceRef } from "./looking.ts";
import type {
  CallOptions,
  Changes,
  EngineType,
  GuardName,
  LeftOut,
  SavePoint,
  WorkspaceCallOptions,
} from "./points.ts";

/** Forks, views, commands that are run, and the care of a control directory. */

// ------------------------------------------------------------------------------------- fork, view, run

export interface ForkOptions extends WorkspaceCallOptions {
  /** Default: the folder's name, made unique. */
  name?: string;
  /** A control directory of its own, where `adopt` makes one that is told no place. */
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
  engine: EngineType;
  /** Tried anew where the folder is there. */
  engine_reasons: EngineReason[];
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
  /** Of the store; what only a held tree took up is known to the file system alone. */
  bytes_freed: number;
  /** False: something of the points is left in a store that stays; a warning says why. */
  complete: boolean;
}

export interface EngineOptions extends CallOptions {
  /** `holders`: convert although what other processes have open cannot be known. */
  allow?: readonly GuardName[];
}

/** A plain folder that was made a subvolume in place. */
export interface Conversion {
  /** Where the folder lies as it was, absolute; removed by the first save after. */
  original: string;
  original_b64?: string;
  /** What was copied and compared. */
  entries: number;
  bytes: number;
  duration_ms: number;
}

export interface EngineResult {
  path: string;
  engine: EngineType;
  engine_reasons: EngineReason[];
  /** Where the folder had to be converted for the engine. */
  conversion?: Conversion;
}
