import type { Primitives } from "./contract.ts";
import { provenPrimitives } from "./native-primitives.ts";

export type { MasterKeys } from "./contract.ts";

let chosen: Primitives | undefined;

/** Returns what this thread encrypts and hashes with; known answers are tried once. Throws `unsupported` where one is wrong. */
export function primitives(): Primitives {
  chosen ??= provenPrimitives();
  return chosen;
}
