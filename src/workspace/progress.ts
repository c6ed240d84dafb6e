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
  | "repairing"
  | "rewriting"
  | "uploading"
  | "downloading";

/** At most about ten a second; `done` counts entries (points in cleanup) and never falls within one phase. */
export interface Progress {
  phase: ProgressPhase;
  done: number;
  /** Absent while it is not known. */
  total?: number;
  /** Bytes handled so far in this phase. */
  bytes?: number;
  /** Absent while it is not known. */
  total_bytes?: number;
  /** What is being worked on: a path, a point, the holder of a lock. */
  current?: string;
}
