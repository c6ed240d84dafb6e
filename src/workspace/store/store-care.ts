/** Place of a point's content, as its descriptor says it; each engine knows its own keys. */
export interface PointContent {
  /** id of the workspace's root tree, hex; empty until an engine that does not read has sealed the point */
  tree: string;
  [key: string]: unknown;
}

/** Shapes of what is asked and answered when what holds the points is verified or mended. */

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
  /** also what no point needs */
  everything: boolean;
  /** also hash large files as a whole */
  deep?: boolean | undefined;
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: { done: number; total?: number; bytes: number }) => void) | undefined;
}

export interface StoreProblem {
  /** id of the save point; null: damage that is not about one point */
  point: string | null;
  /** relative to the workspace's root, raw bytes; null where it is about the whole */
  path: Uint8Array | null;
  kind: string;
  detail: string;
  hint: string;
}

/** Verdict of one point. */
export interface PointVerdict {
  label: string;
  /** Everything it needs was read and is what was saved. */
  sound: boolean;
  /** Computed from its trees; null when that was not possible. */
  stateDigest: Uint8Array | null;
  metadataDigest: Uint8Array | null;
  files: number;
  bytes: number;
}

export interface StoreVerification {
  problems: StoreProblem[];
  /** problems beyond those listed */
  more: number;
  /** one for each point, by its id as `label` */
  verdicts: PointVerdict[];
}

/** Something that is not as it should be with what holds the points. */
export interface StoreFinding {
  kind: string;
  severity: "info" | "warning" | "damage";
  detail: string;
  /** what `mend` does, for people */
  repair?: string;
  /** Does it; throws when it cannot be done now. */
  mend?: () => unknown;
  /** Equal for the same thing in a later examination; by default kind and detail. */
  key?: string;
}

export interface ExamineRequest {
  /** every point of every workspace whose descriptor can be read */
  points: readonly { id: string; createdAt: string; content: PointContent }[];
  /** a point, a damaged point or an unfinished save has this id; asked after the store was listed */
  known(id: string): boolean;
  /** points whose descriptor cannot be read, and whose id nobody remembers: snapshots may be theirs */
  nameless: number;
  /** points in which the last verification found damage, with its paths; "" where it names none */
  recordedDamage: readonly { id: string; paths: readonly string[] }[];
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: { done: number; total?: number; bytes: number }) => void) | undefined;
}
