import type { SavePointId } from "../ids.ts";

export interface VerifyProblem {
  point: SavePointId | null;
  path?: string;
  path_b64?: string;
  /** `descriptor`, `store`, `index`, `pack`, `snapshot`, `manifest`, `tree`, `held_tree`, `content`, `digest`, `workspace` */
  kind: string;
  detail: string;
  hint: string;
}

/** A point that was not looked at: it is not sealed, and could not be sealed for now (locked, read-only, full). */
export interface UnverifiedPoint {
  point: SavePointId;
  workspace_name: string;
  detail: string;
  hint: string;
}
