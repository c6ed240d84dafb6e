import type { Primitives } from "./contract.ts";
import { probeNativePrimitives } from "./native-primitives.ts";
import { nodePrimitives } from "./node-primitives.ts";

export type { MasterKeys } from "./contract.ts";

let chosen: Primitives | undefined;

/**
 * What this thread seals with: native calls when every known-answer test passes, node:crypto and
 * sodium-native otherwise. Probed once per thread.
 */
export function primitives(): Primitives {
  chosen ??= probeNativePrimitives() ?? nodePrimitives();
  return chosen;
}
