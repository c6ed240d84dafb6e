/** Place of a point's content in an engine, as the point's descriptor records it; each engine has its own keys. */
export interface PointContent {
  /** id of the workspace's root tree, hex; empty until a clone is sealed */
  tree: string;
  [key: string]: unknown;
}

/** Requests and results of verifying and repairing a workspace's store. */

export interface PointToVerify {
  /** of the save point */
  id: string;
  content: PointContent;
  /** hex, as the descriptor has them */
  stateDigest: string | null;
  metadataDigest: string | null;
}

export interface VerifyStoreRequest {
  points: readonly PointToVerify[];
  /** also read content that no point needs */
  everything: boolean;
  /** also hash large files as a whole */
  deep?: boolean | undefined;
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: { done: number; total?: number; bytes: number }) => void) | undefined;
}

export interface StoreProblem {
  /** id of the save point; null: damage that is not about one point */
  point: string | null;
  /** relative to the workspace's root, raw bytes; null if the problem is about the whole point */
  path: Uint8Array | null;
  kind: string;
  detail: string;
  hint: string;
}

/** Verdict of one point. */
export interface PointVerdict {
  label: string;
  /** True if all content of the point was read and equals the saved content. */
  sound: boolean;
  /** Computed from the point's trees; null if that was impossible. */
  stateDigest: Uint8Array | null;
  metadataDigest: Uint8Array | null;
  files: number;
  bytes: number;
}

export interface StoreVerification {
  problems: StoreProblem[];
  /** number of further problems, which are not listed */
  more: number;
  /** one for each point, by its id as `label` */
  verdicts: PointVerdict[];
}

/** A fault of the store or the clones. */
export interface StoreFinding {
  kind: string;
  severity: "info" | "warning" | "damage";
  detail: string;
  /** describes `mend` to people */
  repair?: string;
  /** Does the repair. Throws if it cannot be done now. */
  mend?: () => unknown;
  /** Equal for the same fault in a later examination; default: kind and detail. */
  key?: string;
}

export interface ExamineRequest {
  /** every point of every workspace whose descriptor can be read */
  points: readonly { id: string; createdAt: string; content: PointContent }[];
  /** true if a point, a damaged point or an unfinished save has this id; called after the store was listed */
  known(id: string): boolean;
  /** number of points with an unreadable descriptor and a lost id: snapshots may belong to them */
  nameless: number;
  /** points that the last verification found damaged, with the damaged paths; "" if it names no path */
  recordedDamage: readonly { id: string; paths: readonly string[] }[];
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: { done: number; total?: number; bytes: number }) => void) | undefined;
}
