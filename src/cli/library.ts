import type { CairnLibrary } from "../contract/index.ts";

/** Loaded only when a command needs it, so that help and usage errors stay fast. */
export async function openLibrary(): Promise<CairnLibrary> {
  const compose = await import("../compose.ts");
  return compose.openLibrary();
}
