import type { LibraryParts } from "../compose.ts";
import type { CairnLibrary } from "../contract/index.ts";

/** Opens the library. Loaded only when a command needs it, so that help and usage errors stay fast. Asks a running daemon first. */
export async function openLibrary(): Promise<CairnLibrary> {
  const { socketsToAsk } = await import("../daemon/places.ts");
  const sockets = socketsToAsk();
  if (sockets.length === 0) return openOwnLibrary();
  const { servedLibrary } = await import("../api/client/served-library.ts");
  return servedLibrary(sockets, openOwnLibrary);
}

/** Opens the library of this process. */
export async function openOwnLibrary(parts: LibraryParts = {}): Promise<CairnLibrary> {
  const compose = await import("../compose.ts");
  return compose.openLibrary(parts);
}
