import { CairnError } from "../errors.ts";
import type { EngineReason, EngineResult, EngineType } from "./contract.ts";

const NOT_YET: readonly EngineType[] = ["btrfs-snapshot", "juicefs-clone", "reflink-copy"];

/** The best engine for a path, and why each better one was passed over. */
export function detectEngine(path: string): EngineResult {
  const passed = NOT_YET.map((engine): EngineReason => ({
    engine,
    chosen: false,
    reason: "this version cannot use it yet",
  }));
  return {
    path,
    engine: "copy",
    engine_reasons: [...passed, { engine: "copy", chosen: true, reason: "works on every file system" }],
  };
}

/** Throws `unsupported` when the engine does not work at a path. */
export function requireEngine(path: string, type: EngineType): void {
  const reason = detectEngine(path).engine_reasons.find(({ engine }) => engine === type);
  if (reason?.chosen === true) return;
  throw new CairnError(
    "unsupported",
    `the engine ${type} does not work at ${path}: ${reason?.reason ?? "there is no such engine"}`,
    { hint: "leave the engine out: copy works everywhere" },
  );
}
