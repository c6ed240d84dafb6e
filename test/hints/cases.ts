import type { ErrorCode } from "../../src/errors.ts";
import { FOLDERS } from "./folders.ts";
import type { HintCase } from "./hint-case.ts";
import { POINTS } from "./points.ts";
import { REPOSITORIES } from "./repositories.ts";

export const HINT_CASES: readonly HintCase[] = [...FOLDERS, ...POINTS, ...REPOSITORIES];

/** Reasons that no command of a fresh folder brings about. */
export interface NotWalked {
  code: ErrorCode;
  reason: string;
  why: string;
}

export const NOT_WALKED: readonly NotWalked[] = [];
