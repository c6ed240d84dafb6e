/** Place of a point's content in an engine, as the point's descriptor records it; each engine has its own keys. */
export interface PointContent {
  /** id of the workspace's root tree, hex; empty until a clone is sealed */
  tree: string;
  [key: string]: unknown;
}

/** The id, in hex, of the folder's tree as the store has it. */
export function storedTree({ tree, stored_tree: stored }: { tree: string; stored_tree?: unknown }): string {
  return typeof stored === "string" ? stored : tree;
}

/** A point whose content is in the store. */
export interface PointToVerify {
  /** of the save point */
  id: string;
  content: PointContent;
  /** hex, as the descriptor has them; null: not compared */
  stateDigest: string | null;
  metadataDigest: string | null;
}

export interface ExamineRequest {
  points: readonly PointToVerify[];
  /** True: also examines snapshots without a point in `points`, and packs that no point needs. */
  everything: boolean;
  /** True: reads all needed packs, and computes digests. False: reads only trees. */
  reads: boolean;
  /** also hash large files as a whole */
  deep?: boolean | undefined;
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: { done: number; total?: number; bytes: number }) => void) | undefined;
}

/** A fault of a workspace: its records, clones or store. */
export interface StoreFinding {
  kind: string;
  severity: "info" | "warning" | "damage";
  detail: string;
  /** id of the save point; absent: the fault is not about one point */
  point?: string;
  /** relative to the workspace's root, raw bytes; absent: the fault is about the whole point */
  path?: Uint8Array;
  /** Tells a caller of `verify` how to go on. */
  hint?: string;
  /** describes `mend` to people */
  repair?: string;
  /** Does the repair. Throws if it cannot be done now. */
  mend?: () => unknown;
  /** Equal for the same fault in a later examination; default: kind, point, and path or detail. */
  key?: string;
}

/** Verdict of one point. */
export interface PointVerdict {
  id: string;
  /** True if all content of the point was read and equals the saved content. */
  sound: boolean;
  /** Computed from the point's trees; null if that was impossible. */
  stateDigest: Uint8Array | null;
  metadataDigest: Uint8Array | null;
  files: number;
  bytes: number;
}
