import type { PointContent } from "./engine.ts";
import type { PointVerdict } from "./verify/verify-content.ts";

/** What an engine is asked, and answers, when what holds the points is verified or mended. */

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

export interface StoreVerification {
  problems: StoreProblem[];
  /** problems beyond those listed */
  more: number;
  /** one for each point, by its id as `label` */
  verdicts: PointVerdict[];
}
