/// <reference lib="esnext.disposable" preserve="true" />
/** Calls of a daemon, by the names and with the types of the library. Everything exported here is promised. */
import "./node-version.ts";
import { servedLibrary, socketsToAsk } from "./api/client/served-library.ts";
import type { CairnLibrary } from "./contract/index.ts";
import { CairnError } from "./errors.ts";

export { CairnError, ERROR_TABLE } from "./errors.ts";
export type { ErrorCode, ErrorOptions, ErrorRow } from "./errors.ts";
export type * from "./contract/index.ts";

/**
 * The library with every verb done by a daemon: in this process there are no threads, no native code and no files of points.
 * `socket`: of the daemon; the user's own and the system's unless told. What no daemon does is `unsupported`.
 */
export function connect({ socket }: { socket?: string } = {}): CairnLibrary {
  const sockets = socket === undefined ? socketsToAsk() : [socket];
  return servedLibrary(sockets, async () => {
    throw new CairnError("unsupported", "no daemon does this, or serves this folder", {
      hint: "the package itself does it, without a daemon: import it in place of its client",
    });
  });
}
